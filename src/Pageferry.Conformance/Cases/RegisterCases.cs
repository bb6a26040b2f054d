using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>B: what can be registered.</summary>
internal static class RegisterCases
{
    private const ulong Wake = 1 << 2;
    private const ulong Copy = 1 << 3;
    private const ulong ZeroPage = 1 << 4;
    private const ulong WriteProtect = 1 << 6;
    private const ulong Continue = 1 << 7;

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('B', "register-missing", "registering for missing faults offers WAKE and COPY, and ZEROPAGE on 4 KiB pages", "uffd-unit-tests: register-ioctls", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            arena.Expect(memory.Ioctls & (Wake | Copy), Wake | Copy);
            arena.Expect((memory.Ioctls & ZeroPage) != 0, arena.Kind != MemoryKind.Hugetlb);
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
        new('B', "register-guest-memfd", "surprise: guest_memfd that can be mapped can't be registered but is EINVAL, up to Linux 7.2 at least; where it can, a missing page faults and is placed", "observed on 6.18 and 7.2", [MemoryKind.GuestMemfd], arena =>
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
}
