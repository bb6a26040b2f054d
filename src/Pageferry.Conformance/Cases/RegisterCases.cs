using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>B: what can be registered.</summary>
internal static class RegisterCases
{
    private const ulong Wake = 1 << 2;
    private const ulong Copy = 1 << 3;
    private const ulong ZeroPage = 1 << 4;
    private const ulong Move = 1 << 5;
    private const ulong WriteProtect = 1 << 6;
    private const ulong Continue = 1 << 7;

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('B', "register-missing", "registering for missing faults offers WAKE and COPY, and ZEROPAGE on 4 KiB pages", "uffd-unit-tests: register-ioctls", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            arena.Expect(memory.Ioctls & (Wake | Copy), Wake | Copy);
            arena.Expect((memory.Ioctls & ZeroPage) != 0, !arena.IsHuge);
        }),
        new('B', "register-minor", "registering for minor faults offers CONTINUE on shared memory", "uffd-unit-tests: register-ioctls", [MemoryKind.Shmem, MemoryKind.Hugetlb], arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            arena.Expect(memory.Ioctls & Continue, Continue);
        }),
        new('B', "register-write-protect", "registering for write-protect faults offers WRITEPROTECT", "uffd-unit-tests: register-ioctls", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1);
            arena.Expect(memory.Ioctls & WriteProtect, WriteProtect);
        }),
        new('B', "register-modes", "of the eight combinations of modes each offers WRITEPROTECT and CONTINUE where it has their mode, and ZEROPAGE and MOVE on 4 KiB pages alone; no mode is EINVAL, and so are minor faults of anonymous memory", "uffd-unit-tests: register-ioctls", ConformanceCase.All, RegisterModes),
        new('B', "register-part-of-huge", "a part of a huge page is EINVAL", "observed on 6.18", [MemoryKind.Hugetlb, MemoryKind.HugetlbPrivate], arena =>
        {
            const ulong SmallPage = 4096;
            (MappedRegion region, MemoryFile? file) = arena.Map(1);
            using (file)
            using (region)
            using (Userfaultfd userfaultfd = arena.Open(arena.MissingFeature))
            {
                arena.ExpectRefusal(() => userfaultfd.Register(region.Address, SmallPage, UserfaultfdModes.Missing), Errno.EINVAL);
                arena.ExpectRefusal(() => userfaultfd.Register(region.Address + SmallPage, region.Length - SmallPage, UserfaultfdModes.Missing), Errno.EINVAL);
            }
        }),
        new('B', "register-read-only", "memory that may only be read can be registered, and its missing pages fault", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Userfaultfd.Unregister(memory.At(0), memory.PageBytes);
            memory.Region.Protect(0, memory.PageBytes, MemoryProtection.Read);
            _ = memory.Userfaultfd.Register(memory.At(0), memory.PageBytes, UserfaultfdModes.Missing);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Place(0);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('B', "register-minor-private", "minor faults of private anonymous memory are EINVAL: it has no page cache", "uffd-unit-tests: register-ioctls", [MemoryKind.Anonymous], arena =>
        {
            (MappedRegion region, _) = arena.Map(1);
            using (region)
            using (Userfaultfd userfaultfd = arena.Open())
            {
                arena.ExpectRefusal(() => userfaultfd.Register(region.Address, region.Length, UserfaultfdModes.Minor), Errno.EINVAL);
            }
        }),
        new('B', "register-nothing", "no mode, an unknown mode, no length and an odd address are EINVAL", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            (MappedRegion region, MemoryFile? file) = arena.Map(1);
            using (file)
            using (region)
            using (Userfaultfd userfaultfd = arena.Open())
            {
                arena.ExpectRefusal(() => userfaultfd.Register(region.Address, region.Length, UserfaultfdModes.None), Errno.EINVAL);
                arena.ExpectRefusal(() => userfaultfd.Register(region.Address, region.Length, (UserfaultfdModes)(1 << 20)), Errno.EINVAL);
                arena.ExpectRefusal(() => userfaultfd.Register(region.Address, 0, UserfaultfdModes.Missing), Errno.EINVAL);
                arena.ExpectRefusal(() => userfaultfd.Register(region.Address + 1, region.Length, UserfaultfdModes.Missing), Errno.EINVAL);
            }
        }),
        new('B', "register-twice", "memory that another userfaultfd has is EBUSY", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            using Userfaultfd other = arena.Open(arena.MissingFeature);
            arena.ExpectRefusal(() => other.Register(memory.At(0), memory.PageBytes, UserfaultfdModes.Missing), Errno.EBUSY);
        }),
        new('B', "surprise-register-guest-memfd", "guest_memfd that can be mapped can't be registered but is EINVAL, up to Linux 7.2 at least; where it can, a missing page faults and is placed", "observed on 6.18 and 7.2", [MemoryKind.GuestMemfd], arena =>
        {
            (MappedRegion region, MemoryFile? file) = arena.Map(1);
            using (file)
            using (region)
            using (Userfaultfd userfaultfd = arena.Open())
            {
                try
                {
                    _ = userfaultfd.Register(region.Address, region.Length, UserfaultfdModes.Missing);
                }
                catch (LinuxException refusal)
                {
                    arena.Expect(refusal.Errno, Errno.EINVAL);
                    return;
                }
            }

            using Armed memory = arena.ArmMissing(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Place(0);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('B', "register-unmapped", "memory that is not mapped is EINVAL", "observed on 6.18", [MemoryKind.Anonymous], arena =>
        {
            // Below vm.mmap_min_addr: nothing is mapped there, and no other thread can map anything there meanwhile.
            const ulong Unmapped = 4096;
            using Userfaultfd userfaultfd = arena.Open();
            arena.ExpectRefusal(() => userfaultfd.Register(Unmapped, arena.PageBytes, UserfaultfdModes.Missing), Errno.EINVAL);
        }),
    ];

    private static void RegisterModes(Arena arena)
    {
        const UserfaultfdModes Every = UserfaultfdModes.Missing | UserfaultfdModes.WriteProtect | UserfaultfdModes.Minor;
        (MappedRegion region, MemoryFile? file) = arena.Map(1);
        using (file)
        using (region)
        using (Userfaultfd userfaultfd = arena.Open(arena.MissingFeature | arena.MinorFeature | arena.WriteProtectFeature))
        {
            for (UserfaultfdModes modes = UserfaultfdModes.None; modes <= Every; modes++)
            {
                if (modes == UserfaultfdModes.None || (arena.Kind == MemoryKind.Anonymous && modes.HasFlag(UserfaultfdModes.Minor)))
                {
                    arena.ExpectRefusal(() => userfaultfd.Register(region.Address, region.Length, modes), Errno.EINVAL, $"registering for {modes}");
                    continue;
                }

                ulong ioctls = userfaultfd.Register(region.Address, region.Length, modes);
                arena.Expect(ioctls & (Wake | Copy), Wake | Copy, $"WAKE and COPY of {modes}");
                arena.Expect((ioctls & WriteProtect) != 0, modes.HasFlag(UserfaultfdModes.WriteProtect), $"WRITEPROTECT of {modes}");
                arena.Expect((ioctls & Continue) != 0, modes.HasFlag(UserfaultfdModes.Minor), $"CONTINUE of {modes}");
                arena.Expect((ioctls & ZeroPage) != 0, !arena.IsHuge, $"ZEROPAGE of {modes}");
                arena.Expect((ioctls & Move) != 0, !arena.IsHuge && Arena.Offers(UserfaultfdFeatures.Move), $"MOVE of {modes}");
                userfaultfd.Unregister(region.Address, region.Length);
            }
        }
    }
}
