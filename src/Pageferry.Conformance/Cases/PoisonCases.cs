using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>H: faults that are errors and not waits. The kernel itself makes the accesses, so that they end with EFAULT and not with a signal.</summary>
internal static class PoisonCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('H', "poison-half", "of pages every other one of which is poisoned, these fail whoever touches them, and the others don't", "uffd-unit-tests: poison", ConformanceCase.All, arena =>
        {
            const ulong Pages = 4;
            using Armed memory = arena.ArmMissing(Pages, UserfaultfdFeatures.Poison);
            for (ulong page = 0; page < Pages; page++)
            {
                Touch? touch = page % 2 == 0 ? memory.Read(page) : null;
                if (touch is null)
                {
                    arena.Expect(memory.Userfaultfd.Poison(memory.At(page), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
                    arena.Expect(memory.CanKernelRead(page), false);
                    continue;
                }

                _ = memory.NextFault(page);
                memory.Place(page);
                arena.Expect(touch.Through(), Arena.ContentByte);
            }
        }),
        new('H', "poison-wakes", "who waits for a page that is poisoned then fails, in the kernel with EFAULT", "uffd-unit-tests: poison", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.Poison);
            bool? couldRead = null;
            Thread reader = memory.StartUser(() => couldRead = memory.CanKernelRead(0));
            _ = memory.NextFault(0);
            arena.Expect(memory.Userfaultfd.Poison(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            memory.Finish(reader, "who waited goes on");
            arena.Expect(couldRead, false);
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
            arena.Expect(memory.CanKernelRead(0), false);
            arena.Expect(memory.IsQuiet, true);
            memory.Place(0);
            arena.Expect(memory.CanKernelRead(0), true);
        }),
        new('H', "sigbus-write-protect", "with UFFD_FEATURE_SIGBUS a write to a protected page fails whoever makes it, a read does not, and there is no message", "uffd-unit-tests: sigbus-wp", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1, UserfaultfdFeatures.Sigbus);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.WriteProtect), UserfaultfdResult.Done);
            arena.Expect(memory.CanKernelRead(0), true);
            arena.Expect(memory.CanKernelWrite(0, 9), false);
            arena.Expect(memory.IsQuiet, true);
            arena.Expect(memory.Read(0).Through(), Arena.ContentByte);
            memory.Unprotect(0);
            arena.Expect(memory.CanKernelWrite(0, 9), true);
            arena.Expect(memory.Read(0).Through(), (byte)9);
        }),
    ];
}
