using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>G: shared memory with two views.</summary>
internal static class MinorCases
{
    private const ulong PagesOfHuge = 512;

    private static readonly MemoryKind[] s_shared = [MemoryKind.Shmem, MemoryKind.Hugetlb];

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('G', "minor-every-page", "each page that only the other view has touched is a minor fault, none a missing one", "uffd-unit-tests: minor", s_shared, arena =>
        {
            const ulong Pages = 4;
            using Armed memory = arena.ArmMinor(Pages);
            for (ulong page = 0; page < Pages; page++)
            {
                memory.Host!.Span(page * memory.PageBytes, 1)[0] = (byte)(page + 1);
            }

            for (ulong page = 0; page < Pages; page++)
            {
                Touch touch = memory.Read(page);
                arena.Expect(memory.NextFault(page).IsMinor, true);
                arena.Expect(memory.Userfaultfd.Continue(memory.At(page), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
                arena.Expect(touch.Through(), (byte)(page + 1));
            }
        }),
        new('G', "minor-changed-while-waiting", "who waits sees what the other view wrote before UFFDIO_CONTINUE", "uffd-unit-tests: minor", s_shared, arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            memory.Host!.Span(0, 1)[0] = 1;
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Host.Span(0, 1)[0] = 2;
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(touch.Through(), (byte)2);
        }),
        new('G', "surprise-minor-alone-fills-holes", "registered for minor faults alone, a hole is filled with zeros and nobody is asked", "observed on 6.18", s_shared, arena =>
        {
            using var memory = new Armed(arena, 1, UserfaultfdModes.Minor, arena.MinorFeature);
            arena.Expect(memory.Read(0).Through(), (byte)0);
            arena.Expect(memory.IsQuiet, true);
        }),
        new('G', "minor-protected", "UFFDIO_CONTINUE with MODE_WP places a page whose first write faults; older kernels (6.1) refuse the mode, and no feature tells", "uffd-unit-tests: minor-wp", s_shared, arena =>
        {
            using var memory = new Armed(
                arena, 1, UserfaultfdModes.Missing | UserfaultfdModes.Minor | UserfaultfdModes.WriteProtect, arena.MissingFeature | arena.MinorFeature | arena.WriteProtectFeature);
            memory.Host!.Span(0, 1)[0] = 1;
            Touch touch = memory.Write(0, 2);
            arena.Expect(memory.NextFault(0).IsMinor, true);
            UserfaultfdResult placed = memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.WriteProtect, out _);
            if (placed == UserfaultfdResult.Invalid && memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _) == UserfaultfdResult.Done)
            {
                throw new CaseUnsupportedException("UFFDIO_CONTINUE is EINVAL with MODE_WP and done without it: this kernel lacks the mode");
            }

            arena.Expect(placed, UserfaultfdResult.Done);
            arena.Expect(memory.NextFault(0).IsWriteProtect, true);
            arena.Expect(memory.Userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, UserfaultfdWriteProtectFlags.None), UserfaultfdResult.Done);
            _ = touch.Through();
            arena.Expect(memory.Host.Span(0, 1)[0], (byte)2);
        }),
        new('G', "minor-collapse", "memory whose every page was mapped by UFFDIO_CONTINUE can be collapsed to a huge page, and keeps its content", "uffd-unit-tests: minor-collapse", [MemoryKind.Shmem], arena =>
        {
            ExpectCollapses(arena);
            using Armed memory = arena.ArmMinor(PagesOfHuge);
            Populate(memory.Host!, memory.PageBytes);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.Region.Length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(memory.Region.TryCollapse(0), true);
            for (ulong page = 0; page < PagesOfHuge; page += 73)
            {
                arena.Expect(memory.Read(page).Through(), (byte)(page + 1));
            }

            arena.Expect(memory.IsQuiet, true);
        }),
        new('G', "surprise-collapse-hole", "memory with a hole that is to fault can't be collapsed; kernels without UFFD_FEATURE_WP_UNPOPULATED (before 6.4) collapse it, fill the hole with zeros and ask nobody", "observed on 6.18 and 6.1", [MemoryKind.Shmem], arena =>
        {
            ExpectCollapses(arena);
            using Armed memory = arena.ArmMinor(PagesOfHuge);
            Populate(memory.Host!, memory.PageBytes);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.Region.Length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            memory.MemoryFile!.PunchHole(3 * memory.PageBytes, memory.PageBytes);
            bool isCollapsed = memory.Region.TryCollapse(0);
            if (isCollapsed && !Arena.Offers(UserfaultfdFeatures.WriteProtectUnpopulated))
            {
                arena.Expect(memory.Read(3).Through(), (byte)0);
                arena.Expect(memory.IsQuiet, true);
                return;
            }

            arena.Expect(isCollapsed, false);
            arena.Expect(memory.Host!.TryCollapse(0), false);
            Touch touch = memory.Read(3);
            arena.Expect(memory.NextFault(3).IsMinor, false);
            memory.Place(3);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
    ];

    /// <summary>Says that a range of 2 MiB which is registered with nothing becomes a huge page.</summary>
    /// <exception cref="CaseUnsupportedException">It doesn't.</exception>
    private static void ExpectCollapses(Arena arena)
    {
        (MappedRegion region, MemoryFile? file) = arena.Map(PagesOfHuge);
        using (file)
        using (region)
        {
            Populate(region, arena.PageBytes);
            if (!region.TryCollapse(0))
            {
                throw new CaseUnsupportedException("MADV_COLLAPSE made no huge page of memory that is not registered: none is free, or this kernel makes none");
            }
        }
    }

    private static void Populate(MappedRegion region, ulong pageBytes)
    {
        for (ulong page = 0; page < PagesOfHuge; page++)
        {
            region.Span(page * pageBytes, 1)[0] = (byte)(page + 1);
        }
    }
}
