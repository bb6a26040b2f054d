using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>C: each request that resolves a fault, and its answers.</summary>
internal static class ResolveCases
{
    private static readonly MemoryKind[] s_small = [MemoryKind.Anonymous, MemoryKind.Shmem];
    private static readonly MemoryKind[] s_shared = [MemoryKind.Shmem, MemoryKind.Hugetlb];

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('C', "copy", "UFFDIO_COPY places the content, counts its bytes and wakes who waits", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            Touch touch = memory.Read(1);
            _ = memory.NextFault(1);
            arena.Expect(memory.Copy(1, 1, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)memory.PageBytes);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('C', "copy-present", "UFFDIO_COPY onto a page that is there is EEXIST, and the count is -17", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Place(0);
            arena.Expect(memory.Copy(0, 1, out long done), UserfaultfdResult.AlreadyPresent);
            arena.Expect(done, -(long)Errno.EEXIST);
        }),
        new('C', "copy-partial", "UFFDIO_COPY that meets a page in its middle is EAGAIN, and the count is what was done", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(4);
            memory.Place(2);
            arena.Expect(memory.Copy(0, 4, out long done), UserfaultfdResult.Retry);
            arena.Expect(done, 2 * (long)memory.PageBytes);
        }),
        new('C', "copy-unregistered", "UFFDIO_COPY into memory that is not registered is ENOENT", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Userfaultfd.Unregister(memory.At(0), memory.PageBytes);
            arena.Expect(memory.Copy(0, 1, out _), UserfaultfdResult.NotRegistered);
        }),
        new('C', "copy-beyond", "UFFDIO_COPY beyond the end of the mapping is ENOENT, and nothing is placed", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            arena.Expect(memory.Copy(1, 2, out _), UserfaultfdResult.NotRegistered);
            memory.Place(1);
        }),
        new('C', "copy-bad-source", "UFFDIO_COPY from memory that is not mapped is EFAULT", "observed on 6.18", s_small, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            const ulong Nowhere = 0x1000;
            arena.Expect(memory.Userfaultfd.Copy(memory.At(0), Nowhere, memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.BadSource);
            arena.Expect(done, -(long)Errno.EFAULT);
        }),
        new('C', "copy-source-unaligned", "UFFDIO_COPY takes a source at any address", "observed on 6.18", s_small, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            arena.Expect(memory.Userfaultfd.Copy(memory.At(0), arena.Content + 1, memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
        }),
        new('C', "copy-invalid", "UFFDIO_COPY to an odd address, of no or an odd length, or with an unknown mode is EINVAL", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            Userfaultfd userfaultfd = memory.Userfaultfd;
            arena.Expect(userfaultfd.Copy(memory.At(0) + 1, arena.Content, memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.Copy(memory.At(0), arena.Content, 0, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.Copy(memory.At(0), arena.Content, 100, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.Copy(memory.At(0), arena.Content, memory.PageBytes, (UserfaultfdCopyFlags)(1 << 10), out _), UserfaultfdResult.Invalid);
        }),
        new('C', "copy-protect-unregistered", "UFFDIO_COPY with MODE_WP where write-protect faults are not registered is EINVAL", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.WriteProtect), UserfaultfdResult.Invalid);
        }),
        new('C', "copy-cached", "UFFDIO_COPY onto a page that is in the page cache and not mapped is EEXIST", "observed on 6.18", s_shared, arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            memory.Host!.Span(0, 1)[0] = 7;
            arena.Expect(memory.Copy(0, 1, out _), UserfaultfdResult.AlreadyPresent);
        }),
        new('C', "zeropage", "UFFDIO_ZEROPAGE places zeros and wakes who waits", "uffd-unit-tests: zeropage", s_small, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            arena.Expect(memory.Userfaultfd.ZeroPage(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)memory.PageBytes);
            arena.Expect(touch.Through(), (byte)0);
            arena.Expect(memory.Userfaultfd.ZeroPage(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out done), UserfaultfdResult.AlreadyPresent);
        }),
        new('C', "zeropage-huge", "UFFDIO_ZEROPAGE on huge pages is refused", "uffd-unit-tests: zeropage", [MemoryKind.Hugetlb], arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            arena.Expect(memory.Userfaultfd.ZeroPage(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
        }),
        new('C', "continue", "UFFDIO_CONTINUE maps what is in the page cache", "uffd-unit-tests: minor", s_shared, arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            memory.Host!.Span(0, 1)[0] = 7;
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, true);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)memory.PageBytes);
            arena.Expect(touch.Through(), (byte)7);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.AlreadyPresent);
        }),
        new('C', "continue-hole", "UFFDIO_CONTINUE of a page that is not in the page cache is EFAULT", "ioctl_userfaultfd(2)", s_shared, arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.BadSource);
            arena.Expect(done, -(long)Errno.EFAULT);
        }),
        new('C', "continue-partial", "UFFDIO_CONTINUE that meets a hole in its middle is EAGAIN, and the count is what was done", "observed on 6.18", s_shared, arena =>
        {
            using Armed memory = arena.ArmMinor(3);
            memory.Host!.Span(0, 1)[0] = 7;
            memory.Host.Span(memory.PageBytes, 1)[0] = 7;
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), 3 * memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.Retry);
            arena.Expect(done, 2 * (long)memory.PageBytes);
        }),
        new('C', "continue-private", "UFFDIO_CONTINUE of private anonymous memory is EINVAL", "observed on 6.18", [MemoryKind.Anonymous], arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
        }),
        new('C', "move", "UFFDIO_MOVE places another range's page without a copy, and that range has a hole", "uffd-unit-tests: move", [MemoryKind.Anonymous], arena =>
        {
            using Armed memory = arena.ArmMissing(2, UserfaultfdFeatures.Move);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            arena.Expect(memory.Userfaultfd.Move(memory.At(0), arena.Content, memory.PageBytes, UserfaultfdMoveFlags.None, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)memory.PageBytes);
            arena.Expect(touch.Through(), Arena.ContentByte);
            arena.Expect(arena.ContentRegion.Span(0, 1)[0], (byte)0);
            arena.ContentRegion.Advise(0, memory.PageBytes, MemoryAdvice.DontNeed);
            arena.Expect(memory.Userfaultfd.Move(memory.At(1), arena.Content, memory.PageBytes, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.NotRegistered);
            arena.Expect(memory.Userfaultfd.Move(memory.At(1), arena.Content, memory.PageBytes, UserfaultfdMoveFlags.AllowSourceHoles, out _), UserfaultfdResult.Done);
            arena.Expect(memory.Userfaultfd.Move(memory.At(0), arena.Content + memory.PageBytes, memory.PageBytes, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.AlreadyPresent);
        }),
    ];
}
