using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>A: the handshake.</summary>
internal static class HandshakeCases
{
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
        new('A', "api-unknown-feature", "an unknown feature is EINVAL", "uffd-unit-tests: UFFDIO_API", [MemoryKind.Anonymous], arena =>
        {
            arena.Open().Dispose();
            arena.ExpectRefusal(() => Userfaultfd.Open((UserfaultfdFeatures)(1UL << 63)), Errno.EINVAL);
        }),
        new('A', "api-once", "a second UFFDIO_API on the same userfaultfd is EINVAL, also after one that asked for nothing", "uffd-unit-tests: UFFDIO_API", [MemoryKind.Anonymous], arena =>
        {
            using Userfaultfd userfaultfd = arena.Open();
            arena.ExpectRefusal(() => Userfaultfd.Agree(userfaultfd.Descriptor, UserfaultfdFeatures.None), Errno.EINVAL);
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
}
