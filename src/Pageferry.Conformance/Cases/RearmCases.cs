using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>F: how a page that was accessed is made to fault again.</summary>
internal static class RearmCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('F', "dontneed-private", "MADV_DONTNEED of private memory loses the content; the next access is a missing fault", "madvise(2)", [MemoryKind.Anonymous, MemoryKind.ShmemPrivate, MemoryKind.HugetlbPrivate], arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Place(0);
            memory.Region.Advise(0, memory.PageBytes, MemoryAdvice.DontNeed);
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, false);
            memory.PlaceNumber(0);
            arena.Expect(touch.Through(), (byte)'4');
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
        new('F', "move-aside", "UFFDIO_MOVE into another mapping keeps the content there; the next access is a missing fault, and moving it back resolves it", "uffd-unit-tests: move", [MemoryKind.Anonymous], arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            using Armed aside = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            memory.Place(0);
            arena.Expect(aside.Userfaultfd.Move(aside.At(0), memory.At(0), memory.PageBytes, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Done);
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, false);
            arena.Expect(memory.Userfaultfd.Move(memory.At(0), aside.At(0), memory.PageBytes, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('F', "protect-none", "PROT_NONE keeps the content, and an access is EFAULT and no userfault, also of a page that is missing; when it is taken off, pages are as they were", "mprotect(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            memory.Place(0);
            memory.Region.Protect(0, memory.Region.Length, MemoryProtection.None);
            arena.Expect(memory.CanKernelRead(0), false);
            arena.Expect(memory.CanKernelRead(1), false);
            arena.Expect(memory.IsQuiet, true);
            memory.Region.Protect(0, memory.Region.Length, MemoryProtection.ReadWrite);
            arena.Expect(memory.Read(0).Through(), Arena.ContentByte);
            Touch touch = memory.Read(1);
            _ = memory.NextFault(1);
            memory.Place(1);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('F', "protect-none-place", "a page can be placed under PROT_NONE; it is there when that is taken off", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Region.Protect(0, memory.PageBytes, MemoryProtection.None);
            memory.Place(0);
            arena.Expect(memory.CanKernelRead(0), false);
            memory.Region.Protect(0, memory.PageBytes, MemoryProtection.ReadWrite);
            arena.Expect(memory.Read(0).Through(), Arena.ContentByte);
        }),
        new('F', "protect-none-punch-hole", "FALLOC_FL_PUNCH_HOLE under PROT_NONE loses the content; when PROT_NONE is taken off, the next access is a missing fault", "fallocate(2)", [MemoryKind.Shmem, MemoryKind.Hugetlb], arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            memory.Place(0);
            memory.Region.Protect(0, memory.PageBytes, MemoryProtection.None);
            memory.MemoryFile!.PunchHole(0, memory.PageBytes);
            arena.Expect(memory.CanKernelRead(0), false);
            memory.Region.Protect(0, memory.PageBytes, MemoryProtection.ReadWrite);
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, false);
            memory.PlaceNumber(0);
            arena.Expect(touch.Through(), (byte)'4');
        }),
    ];
}
