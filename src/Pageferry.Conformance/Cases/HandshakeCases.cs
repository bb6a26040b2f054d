using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>A: the handshake.</summary>
internal static class HandshakeCases
{
    private const string Selftest = "uffd-unit-tests: UFFDIO_API";

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('A', "api-offers", "UFFDIO_API answers with every feature the kernel has, asked for or not", "ioctl_userfaultfd(2)", [MemoryKind.Anonymous], arena =>
        {
            UserfaultfdProbe probe = Userfaultfd.Probe();
            if (probe.Failure is { } refusal)
            {
                throw new CaseUnsupportedException(refusal.Message);
            }

            arena.Expect(probe.Features.HasFlag(UserfaultfdFeatures.EventRemove), true);
        }),
        new('A', "api-wrong-version", "another version than 0xAA is EINVAL, and the kernel leaves zeros in place of what was asked", Selftest, [MemoryKind.Anonymous], arena =>
            ExpectRefused(arena, new Interop.uffdio_api { api = 0xAB })),
        new('A', "api-unknown-feature", "an unknown feature is EINVAL, and the kernel leaves zeros in place of what was asked", Selftest, [MemoryKind.Anonymous], arena =>
            ExpectRefused(arena, new Interop.uffdio_api { api = Interop.UFFD_API, features = 1UL << 63 })),
        new('A', "api-after-a-refusal", "a refused handshake may be tried again on the same userfaultfd", "observed on 6.18", [MemoryKind.Anonymous], arena =>
        {
            using Userfaultfd userfaultfd = OpenUnagreed(arena);
            arena.ExpectRefusal(() => Userfaultfd.Agree(userfaultfd.Descriptor, (UserfaultfdFeatures)(1UL << 63)), Errno.EINVAL);
            _ = Userfaultfd.Agree(userfaultfd.Descriptor, UserfaultfdFeatures.None);
        }),
        new('A', "surprise-api-once", "a second UFFDIO_API on the same userfaultfd is EINVAL, also after one that asked for nothing: ask for what there is on one, and for what is needed on another", Selftest, [MemoryKind.Anonymous], arena =>
        {
            using Userfaultfd userfaultfd = arena.Open();
            arena.ExpectRefusal(() => Userfaultfd.Agree(userfaultfd.Descriptor, UserfaultfdFeatures.None), Errno.EINVAL);
        }),
        new('A', "early-requests", "before the handshake every request is EINVAL", "userfaultfd(2)", [MemoryKind.Anonymous], arena =>
        {
            (MappedRegion region, _) = arena.Map(1);
            using (region)
            using (Userfaultfd userfaultfd = OpenUnagreed(arena))
            {
                (ulong address, ulong length) = (region.Address, region.Length);
                arena.ExpectRefusal(() => userfaultfd.Register(address, length, UserfaultfdModes.Missing), Errno.EINVAL);
                arena.ExpectRefusal(() => userfaultfd.Unregister(address, length), Errno.EINVAL);
                arena.ExpectRefusal(() => userfaultfd.Wake(address, length), Errno.EINVAL);
                arena.Expect(userfaultfd.Copy(address, arena.Content, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
                arena.Expect(userfaultfd.ZeroPage(address, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
                arena.Expect(userfaultfd.Continue(address, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
                arena.Expect(userfaultfd.Poison(address, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
                arena.Expect(userfaultfd.Move(address, arena.Content, length, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Invalid);
                arena.Expect(userfaultfd.WriteProtect(address, length, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.Invalid);
            }
        }),
        new('A', "early-read", "before the handshake a read is EINVAL", "userfaultfd(2)", [MemoryKind.Anonymous], arena =>
        {
            using Userfaultfd userfaultfd = OpenUnagreed(arena);
            using var events = new UserfaultfdEventBuffer(1);
            arena.ExpectRefusal(() => userfaultfd.Read(events), Errno.EINVAL);
        }),
        new('A', "early-poll", "before the handshake poll is POLLERR", "userfaultfd(2)", [MemoryKind.Anonymous], arena =>
        {
            using Userfaultfd userfaultfd = OpenUnagreed(arena);
            var poll = new Poll(userfaultfd.Descriptor);
            arena.Expect(poll.Wait(0), 1);
            arena.Expect(poll.IsFaulty(0), true);
            _ = Userfaultfd.Agree(userfaultfd.Descriptor, UserfaultfdFeatures.None);
            arena.Expect(poll.Wait(0), 0);
        }),
        new('A', "surprise-poll-blocking", "a userfaultfd without O_NONBLOCK can be read, but poll is POLLERR", "userfaultfd(2)", [MemoryKind.Anonymous], arena =>
        {
            using Userfaultfd userfaultfd = arena.Open();
            var poll = new Poll(userfaultfd.Descriptor);
            arena.Expect(poll.Wait(0), 0);
            _ = Interop.Fcntl(userfaultfd.Descriptor.Number, Interop.F_SETFL, 0);
            arena.Expect(poll.Wait(0), 1);
            arena.Expect(poll.IsFaulty(0), true);
        }),
        new('A', "user-mode-only", "UFFD_USER_MODE_ONLY needs no permission and leaves the kernel's accesses EFAULT", "userfaultfd(2)", [MemoryKind.Anonymous], arena =>
        {
            (MappedRegion region, _) = arena.Map(1);
            using (region)
            using (Userfaultfd userfaultfd = Userfaultfd.Open(UserfaultfdFeatures.None, userModeOnly: true))
            {
                _ = userfaultfd.Register(region.Address, region.Length, UserfaultfdModes.Missing);
                using Armed other = arena.ArmMissing(1);
                arena.Expect(other.Userfaultfd.Copy(other.At(0), region.Address, other.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.BadSource);
                userfaultfd.Unregister(region.Address, region.Length);
            }
        }),
    ];

    private static void ExpectRefused(Arena arena, Interop.uffdio_api asked)
    {
        using Userfaultfd userfaultfd = OpenUnagreed(arena);
        Interop.uffdio_api api = asked;
        arena.ExpectRefusal(
            () =>
            {
                if (!Userfaultfd.TryAgree(userfaultfd.Descriptor, ref api))
                {
                    throw LinuxException.FromLastError("agree");
                }
            },
            Errno.EINVAL,
            "UFFDIO_API");
        arena.Expect((api.api, api.features, api.ioctls), (0UL, 0UL, 0UL));
    }

    private static Userfaultfd OpenUnagreed(Arena arena)
    {
        // What it is refused for is said with a handshake.
        arena.Open().Dispose();
        return Userfaultfd.FromDescriptor(Userfaultfd.OpenAny(userModeOnly: false, out _));
    }
}
