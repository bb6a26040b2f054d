using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>C: each request that resolves a fault, and its answers.</summary>
internal static class ResolveCases
{
    private static readonly MemoryKind[] s_small = [MemoryKind.Anonymous, MemoryKind.Shmem, MemoryKind.ShmemPrivate];
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
        new('C', "zeropage-huge", "UFFDIO_ZEROPAGE on huge pages is refused", "uffd-unit-tests: zeropage", [MemoryKind.Hugetlb, MemoryKind.HugetlbPrivate], arena =>
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
        new('C', "zeropage-partial", "UFFDIO_ZEROPAGE that meets a page in its middle is EAGAIN, and the count is what was done", "observed on 6.18", s_small, arena =>
        {
            using Armed memory = arena.ArmMissing(4);
            memory.Place(2);
            arena.Expect(memory.Userfaultfd.ZeroPage(memory.At(0), 4 * memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.Retry);
            arena.Expect(done, 2 * (long)memory.PageBytes);
        }),
        new('C', "place-unregistered", "UFFDIO_ZEROPAGE and UFFDIO_CONTINUE of memory that is not registered are ENOENT", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Userfaultfd.Unregister(memory.At(0), memory.PageBytes);
            arena.Expect(memory.Userfaultfd.ZeroPage(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.NotRegistered);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.NotRegistered);
        }),
        new('C', "place-invalid", "UFFDIO_ZEROPAGE and UFFDIO_CONTINUE of an odd address, of no or an odd length, or with an unknown mode are EINVAL", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            ExpectInvalid(arena, memory, memory.Userfaultfd.ZeroPage);
            ExpectInvalid(arena, memory, memory.Userfaultfd.Continue);
        }),
        new('C', "poison", "UFFDIO_POISON counts its bytes, wakes who waits, and fails whoever touches the page from then on", "uffd-unit-tests: poison", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2, UserfaultfdFeatures.Poison);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)memory.PageBytes);
            arena.Expect(memory.CanKernelRead(0), false);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out done), UserfaultfdResult.AlreadyPresent);
            arena.Expect(done, -(long)Errno.EEXIST);
            memory.Place(1);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(1), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.AlreadyPresent);
        }),
        new('C', "poison-partial", "UFFDIO_POISON that meets a page in its middle is EAGAIN, and the count is what was done", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(4, UserfaultfdFeatures.Poison);
            memory.Place(2);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(0), 4 * memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.Retry);
            arena.Expect(done, 2 * (long)memory.PageBytes);
        }),
        new('C', "poison-refused", "UFFDIO_POISON of memory that is not registered is ENOENT; of an odd address, of no or an odd length, or with an unknown mode EINVAL", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2, UserfaultfdFeatures.Poison);
            ExpectInvalid(arena, memory, memory.Userfaultfd.Poison);
            memory.Userfaultfd.Unregister(memory.At(0), memory.PageBytes);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.NotRegistered);
        }),
        new('C', "end-of-file", "beyond the end of the file UFFDIO_COPY is EFAULT, or ENOMEM, and nothing is placed", "observed on 6.18, and on 7.2, where it is ENOMEM for small pages of a shared file", [MemoryKind.Shmem, MemoryKind.ShmemPrivate, MemoryKind.Hugetlb], arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            memory.MemoryFile!.Shorten(memory.PageBytes);
            UserfaultfdResult result = memory.Copy(1, 1, out long done);
            arena.Expect(result is UserfaultfdResult.BadSource or UserfaultfdResult.NoMemory, true, $"it is EFAULT or ENOMEM, not {result}");
            arena.Expect(done, -(long)(result == UserfaultfdResult.NoMemory ? Errno.ENOMEM : Errno.EFAULT));
            memory.Place(0);
        }),
        new('C', "surprise-end-of-file-huge", "of huge pages that are mapped privately UFFDIO_COPY places one beyond the end of the file, where without it an access is SIGBUS; or it is EFAULT, as elsewhere", "observed on 6.18", [MemoryKind.HugetlbPrivate], arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            memory.MemoryFile!.Shorten(memory.PageBytes);
            UserfaultfdResult result = memory.Copy(1, 1, out _);
            arena.Expect(result is UserfaultfdResult.Done or UserfaultfdResult.BadSource, true, $"it is placed or EFAULT, not {result}");
            arena.Expect(memory.CanKernelRead(1), result == UserfaultfdResult.Done);
        }),
        new('C', "end-of-file-continue", "beyond the end of the file UFFDIO_CONTINUE is EINVAL, or EFAULT on huge pages; on small ones too since 7.2", "observed on 6.18 and 7.2", s_shared, arena =>
        {
            using Armed memory = arena.ArmMinor(2);
            memory.MemoryFile!.Shorten(memory.PageBytes);
            UserfaultfdResult result = memory.Userfaultfd.Continue(memory.At(1), memory.PageBytes, UserfaultfdCopyFlags.None, out long done);
            arena.Expect(result == UserfaultfdResult.BadSource || (result == UserfaultfdResult.Invalid && !arena.IsHuge), true, $"it is EINVAL on small pages, or EFAULT, not {result}");
            arena.Expect(done, -(long)(result == UserfaultfdResult.Invalid ? Errno.EINVAL : Errno.EFAULT));
        }),
        new('C', "process-gone", "when the process whose memory it is has ended every request is ESRCH and leaves its count as it was; WAKE is no error", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1, UserfaultfdFeatures.EventFork);
            Child child = memory.ForkIdler();
            using var inherited = new Inherited(arena, memory);
            child.Dispose();
            (Userfaultfd userfaultfd, ulong page, ulong length) = (inherited.Userfaultfd, memory.At(0), memory.PageBytes);
            arena.Expect(userfaultfd.Copy(page, arena.Content, length, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.ProcessGone);
            arena.Expect(done, 0L);
            arena.Expect(userfaultfd.ZeroPage(page, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.ProcessGone);
            arena.Expect(userfaultfd.Continue(page, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.ProcessGone);
            arena.Expect(userfaultfd.WriteProtect(page, length, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.ProcessGone);
            if (Arena.Offers(UserfaultfdFeatures.Poison))
            {
                arena.Expect(userfaultfd.Poison(page, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.ProcessGone);
            }

            userfaultfd.Wake(page, length);
        }),
    ];

    private delegate UserfaultfdResult Request(ulong address, ulong length, UserfaultfdCopyFlags flags, out long done);

    private static void ExpectInvalid(Arena arena, Armed memory, Request request)
    {
        arena.Expect(request(memory.At(0) + 1, memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
        arena.Expect(request(memory.At(0), 0, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
        arena.Expect(request(memory.At(0), 100, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Invalid);
        arena.Expect(request(memory.At(0), memory.PageBytes, (UserfaultfdCopyFlags)(1 << 10), out _), UserfaultfdResult.Invalid);
    }
}
