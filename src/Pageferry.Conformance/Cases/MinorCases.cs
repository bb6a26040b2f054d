using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>G: shared memory with two views.</summary>
internal static class MinorCases
{
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
        new('G', "minor-alone-fills-holes", "surprise: registered for minor faults alone, a hole is filled with zeros and nobody is asked", "observed on 6.18", s_shared, arena =>
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
    ];
}
