using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>C: UFFDIO_MOVE, which resolves a fault with another range's page.</summary>
internal static class MoveCases
{
    private const ulong PagesOfHuge = 512;

    private static readonly MemoryKind[] s_anonymous = [MemoryKind.Anonymous];

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('C', "move", "UFFDIO_MOVE places another range's page without a copy, wakes who waits, and that range has a hole", "uffd-unit-tests: move", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            arena.Expect(Move(memory, 0, arena.Content, 1, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)memory.PageBytes);
            arena.Expect(touch.Through(), Arena.ContentByte);
            arena.Expect(arena.ContentRegion.Span(0, 1)[0], (byte)0);
        }),
        new('C', "move-hole", "UFFDIO_MOVE of a hole is ENOENT, or with MODE_ALLOW_SRC_HOLES passes over it and leaves the page missing", "ioctl_userfaultfd(2)", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            using var hole = MappedRegion.MapAnonymous(memory.PageBytes);
            arena.Expect(Move(memory, 0, hole.Address, 1, out _), UserfaultfdResult.NotRegistered);
            arena.Expect(memory.Userfaultfd.Move(memory.At(0), hole.Address, memory.PageBytes, UserfaultfdMoveFlags.AllowSourceHoles, out _), UserfaultfdResult.Done);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Place(0);
            _ = touch.Through();
        }),
        new('C', "move-present", "UFFDIO_MOVE onto a page that is there is EEXIST, and the source keeps its page", "ioctl_userfaultfd(2)", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            memory.PlaceNumber(0);
            arena.Expect(Move(memory, 0, arena.Content, 1, out long done), UserfaultfdResult.AlreadyPresent);
            arena.Expect(done, -(long)Errno.EEXIST);
            arena.Expect(arena.ContentRegion.Span(0, 1)[0], Arena.ContentByte);
            arena.Expect(memory.Read(0).Through(), (byte)'4');
        }),
        new('C', "move-partial", "UFFDIO_MOVE that meets a page in its middle is EAGAIN, and the count is what was done", "observed on 6.18", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(4, UserfaultfdFeatures.Move);
            memory.Place(2);
            arena.Expect(Move(memory, 0, arena.Content, 4, out long done), UserfaultfdResult.Retry);
            arena.Expect(done, 2 * (long)memory.PageBytes);
        }),
        new('C', "move-dontwake", "UFFDIO_MOVE with MODE_DONTWAKE leaves who waits waiting, until UFFDIO_WAKE", "ioctl_userfaultfd(2)", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            arena.Expect(memory.Userfaultfd.Move(memory.At(0), arena.Content, memory.PageBytes, UserfaultfdMoveFlags.DontWake, out _), UserfaultfdResult.Done);
            arena.Expect(touch.Waits, true);
            memory.Userfaultfd.Wake(memory.At(0), memory.PageBytes);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('C', "move-invalid", "UFFDIO_MOVE from or to an odd address, of no or an odd length, or with an unknown mode is EINVAL", "ioctl_userfaultfd(2)", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(2, UserfaultfdFeatures.Move);
            Userfaultfd userfaultfd = memory.Userfaultfd;
            arena.Expect(userfaultfd.Move(memory.At(0) + 1, arena.Content, memory.PageBytes, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.Move(memory.At(0), arena.Content + 1, memory.PageBytes, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.Move(memory.At(0), arena.Content, 0, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.Move(memory.At(0), arena.Content, 100, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.Move(memory.At(0), arena.Content, memory.PageBytes, (UserfaultfdMoveFlags)(1 << 10), out _), UserfaultfdResult.Invalid);
        }),
        new('C', "move-unregistered", "UFFDIO_MOVE into memory that is not registered is EINVAL", "observed on 6.18", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            memory.Userfaultfd.Unregister(memory.At(0), memory.PageBytes);
            arena.Expect(Move(memory, 0, arena.Content, 1, out _), UserfaultfdResult.Invalid);
        }),
        new('C', "move-file", "UFFDIO_MOVE into a file's memory is EINVAL", "observed on 6.18", [MemoryKind.Shmem, MemoryKind.ShmemPrivate, MemoryKind.Hugetlb, MemoryKind.HugetlbPrivate], arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            arena.Expect(Move(memory, 0, arena.Content, 1, out _), UserfaultfdResult.Invalid);
        }),
        new('C', "move-shared-page", "UFFDIO_MOVE of a page that a child has too is EBUSY: it has to be copied", "ioctl_userfaultfd(2)", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            ulong content = arena.Content;
            memory.ForkIdler().Begun();
            arena.Expect(Move(memory, 0, content, 1, out _), UserfaultfdResult.Busy);
            memory.Place(0);
        }),
        new('C', "move-pinned", "UFFDIO_MOVE of a page that is pinned is EBUSY: it has to be copied", "ioctl_userfaultfd(2)", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move);
            using (MemoryPin pin = arena.Pin(arena.Content))
            {
                arena.Expect(Move(memory, 0, arena.Content, 1, out _), UserfaultfdResult.Busy);
            }

            memory.Place(0);
        }),
        new('C', "move-other-process", "UFFDIO_MOVE in another process's memory is EINVAL, and leaves its count as it was", "ioctl_userfaultfd(2)", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Move | UserfaultfdFeatures.EventFork);
            Child child = memory.ForkIdler();
            using var inherited = new Inherited(arena, memory);
            child.Begun();
            arena.Expect(
                inherited.Userfaultfd.Move(memory.At(0), arena.Content, memory.PageBytes, UserfaultfdMoveFlags.None, out long done), UserfaultfdResult.Invalid);
            arena.Expect(done, 0L);
        }),
        new('C', "move-huge", "UFFDIO_MOVE of a whole transparent huge page moves it as one", "uffd-unit-tests: move-pmd", s_anonymous, arena =>
        {
            using Armed memory = arena.ArmMissing(PagesOfHuge, UserfaultfdFeatures.Move);
            using MappedRegion source = MapCollapsed(arena);
            arena.Expect(Move(memory, 0, source.Address, PagesOfHuge, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)source.Length);
            arena.Expect(memory.Read(5).Through(), (byte)5);
            arena.Expect(memory.Read(PagesOfHuge - 1).Through(), unchecked((byte)(PagesOfHuge - 1)));
            arena.Expect(IsHuge(memory.Region), true);
            arena.Expect(source.Span(5 * memory.PageBytes, 1)[0], (byte)0);
        }),
        new('C', "move-huge-split", "UFFDIO_MOVE of a part of a transparent huge page splits it: the part has moved, the rest is where it was", "uffd-unit-tests: move-pmd-split", s_anonymous, arena =>
        {
            const ulong First = 3;
            const ulong Count = 5;
            using Armed memory = arena.ArmMissing(PagesOfHuge, UserfaultfdFeatures.Move);
            using MappedRegion source = MapCollapsed(arena);
            arena.Expect(Move(memory, First, source.Address + (First * memory.PageBytes), Count, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)(Count * memory.PageBytes));
            arena.Expect(memory.Read(First).Through(), (byte)First);
            arena.Expect(memory.Read(First + Count - 1).Through(), (byte)(First + Count - 1));
            arena.Expect(IsHuge(source), false);
            arena.Expect(source.Span((First - 1) * memory.PageBytes, 1)[0], (byte)(First - 1));
            arena.Expect(source.Span(First * memory.PageBytes, 1)[0], (byte)0);
            arena.Expect(source.Span((First + Count) * memory.PageBytes, 1)[0], (byte)(First + Count));
            Touch touch = memory.Read(First + Count);
            _ = memory.NextFault(First + Count);
            memory.Place(First + Count);
            _ = touch.Through();
        }),
    ];

    private static UserfaultfdResult Move(Armed memory, ulong page, ulong source, ulong pages, out long done) =>
        memory.Userfaultfd.Move(memory.At(page), source, pages * memory.PageBytes, UserfaultfdMoveFlags.None, out done);

    /// <summary>One transparent huge page; each small page of it begins with its number.</summary>
    /// <exception cref="CaseUnsupportedException">There is none.</exception>
    private static MappedRegion MapCollapsed(Arena arena)
    {
        var source = MappedRegion.MapAnonymous(PagesOfHuge * arena.PageBytes);
        for (ulong page = 0; page < PagesOfHuge; page++)
        {
            source.Span(page * arena.PageBytes, 1)[0] = unchecked((byte)page);
        }

        if (source.TryCollapse(0))
        {
            return source;
        }

        source.Dispose();
        throw new CaseUnsupportedException("MADV_COLLAPSE made no huge page of 512 pages that nobody else has: none is free, or this kernel makes none");
    }

    private static bool IsHuge(MappedRegion region)
    {
        using var map = PageMap.Open(Environment.ProcessId);
        var ranges = new PageRange[1];
        var huge = new PageFilter { All = PageCategories.Huge };
        return map.Scan(region.Address, region.Address + region.Length, huge, PageCategories.None, ranges, out _) == 1
            && ranges[0].End - ranges[0].Start == region.Length;
    }
}
