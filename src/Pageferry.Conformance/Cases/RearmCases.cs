using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>F: how a page that was accessed is made to fault again.</summary>
internal static class RearmCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('F', "dontneed-private", "MADV_DONTNEED of private anonymous memory loses the content; the next access is a missing fault", "madvise(2)", [MemoryKind.Anonymous], arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Place(0);
            memory.Region.Advise(0, memory.PageBytes, MemoryAdvice.DontNeed);
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, false);
            arena.Expect(memory.Userfaultfd.ZeroPage(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(touch.Through(), (byte)0);
        }),
        new('F', "dontneed-shared", "MADV_DONTNEED of shared memory keeps the content; the next access is a minor fault", "observed on 6.18", [MemoryKind.Shmem, MemoryKind.Hugetlb], arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            memory.Place(0);
            memory.Region.Advise(0, memory.PageBytes, MemoryAdvice.DontNeed);
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, true);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('F', "punch-hole", "FALLOC_FL_PUNCH_HOLE loses the content in all mappings; the next access is a missing fault", "fallocate(2)", [MemoryKind.Shmem, MemoryKind.Hugetlb], arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            memory.Place(0);
            memory.MemoryFile!.PunchHole(0, memory.PageBytes);
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, false);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.BadSource);
            memory.Place(0);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('F', "write-protect", "a page that was write-protected lets reads through and faults on the next write", "uffd-unit-tests", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1);
            memory.Place(0);
            arena.Expect(memory.Userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.Done);
            arena.Expect(memory.Read(0).Through(), Arena.ContentByte);
            Touch touch = memory.Write(0, 9);
            UserfaultfdEvent fault = memory.NextFault(0);
            arena.Expect(fault.IsWriteProtect, true);
            arena.Expect(fault.IsWrite, true);
            arena.Expect(memory.Userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, UserfaultfdWriteProtectFlags.None), UserfaultfdResult.Done);
            _ = touch.Through();
            arena.Expect(memory.Read(0).Through(), (byte)9);
        }),
        new('F', "write-protect-unregistered", "UFFDIO_WRITEPROTECT where write-protect faults are not registered is ENOENT", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1, arena.WriteProtectFeature);
            arena.Expect(memory.Userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.NotRegistered);
        }),
        new('F', "copy-protected", "UFFDIO_COPY with MODE_WP places a page whose first write faults", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.WriteProtect), UserfaultfdResult.Done);
            Touch touch = memory.Write(0, 9);
            arena.Expect(memory.NextFault(0).IsWriteProtect, true);
            arena.Expect(memory.Userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, UserfaultfdWriteProtectFlags.None), UserfaultfdResult.Done);
            _ = touch.Through();
        }),
    ];
}
