using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>H: faults that are errors and not waits. The kernel itself makes the accesses, so that they end with EFAULT and not with a signal.</summary>
internal static class PoisonCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('H', "poison", "a poisoned page fails whoever touches it; poisoning it again is EEXIST", "uffd-unit-tests: poison", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2, UserfaultfdFeatures.Poison);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out long done), UserfaultfdResult.Done);
            arena.Expect(done, (long)memory.PageBytes);
            arena.Expect(CanKernelRead(arena, memory), false);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.AlreadyPresent);
            memory.Place(1);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(1), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.AlreadyPresent);
        }),
        new('H', "unpoison-copy", "UFFDIO_COPY over a poisoned page places it", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Poison);
            _ = memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _);
            memory.Place(0);
            arena.Expect(memory.Read(0).Through(), Arena.ContentByte);
        }),
        new('H', "unpoison-dontneed", "MADV_DONTNEED takes the poison off: the page is missing again", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Poison);
            _ = memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _);
            memory.Region.Advise(0, memory.PageBytes, MemoryAdvice.DontNeed);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Place(0);
            _ = touch.Through();
        }),
        new('H', "sigbus", "with UFFD_FEATURE_SIGBUS a missing page fails whoever touches it, and there is no message", "uffd-unit-tests: sigbus", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Sigbus);
            arena.Expect(CanKernelRead(arena, memory), false);
            arena.Expect(memory.IsQuiet, true);
            memory.Place(0);
            arena.Expect(CanKernelRead(arena, memory), true);
        }),
    ];

    /// <summary>Whether the kernel can read page 0: it copies it to another memory.</summary>
    private static bool CanKernelRead(Arena arena, Armed memory)
    {
        const ulong SmallPage = 4096;
        using var small = new Arena(MemoryKind.Anonymous);
        using Armed other = small.ArmMissing(1);
        UserfaultfdResult result = other.Userfaultfd.Copy(other.At(0), memory.At(0), SmallPage, UserfaultfdCopyFlags.None, out _);
        arena.Expect(result is UserfaultfdResult.Done or UserfaultfdResult.BadSource, true, $"the kernel's read ends with success or EFAULT, not with {result}");
        return result == UserfaultfdResult.Done;
    }
}
