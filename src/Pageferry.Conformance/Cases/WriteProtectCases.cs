using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>F: pages whose writes are made to fault again.</summary>
internal static class WriteProtectCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('F', "write-protect", "a page that was write-protected lets reads through and faults on the next write", "uffd-unit-tests", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1);
            memory.Place(0);
            memory.Protect(0);
            arena.Expect(memory.Read(0).Through(), Arena.ContentByte);
            ExpectProtected(arena, memory);
            arena.Expect(memory.Read(0).Through(), (byte)9);
        }),
        new('F', "write-protect-unregistered", "UFFDIO_WRITEPROTECT where write-protect faults are not registered is ENOENT", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1, arena.WriteProtectFeature);
            arena.Expect(memory.Userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.NotRegistered);
        }),
        new('F', "write-protect-invalid", "UFFDIO_WRITEPROTECT of an odd address, of no length, with an unknown mode, or with MODE_WP and MODE_DONTWAKE is EINVAL", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            const UserfaultfdWriteProtectFlags Both = UserfaultfdWriteProtectFlags.Protect | UserfaultfdWriteProtectFlags.DontWake;
            using Armed memory = arena.ArmWriteProtect(1);
            Userfaultfd userfaultfd = memory.Userfaultfd;
            arena.Expect(userfaultfd.WriteProtect(memory.At(0) + 1, memory.PageBytes, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.WriteProtect(memory.At(0), 0, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, (UserfaultfdWriteProtectFlags)(1 << 10)), UserfaultfdResult.Invalid);
            arena.Expect(userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, Both), UserfaultfdResult.Invalid);
        }),
        new('F', "copy-protected", "UFFDIO_COPY with MODE_WP places a page whose first write faults", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.WriteProtect), UserfaultfdResult.Done);
            ExpectProtected(arena, memory);
        }),
        new('F', "write-protect-unpopulated", "with UFFD_FEATURE_WP_UNPOPULATED a page that was never populated can be protected: reads find zeros, a write faults; MADV_DONTNEED ends it", "uffd-unit-tests: wp-unpopulated", [MemoryKind.Anonymous], arena =>
        {
            using var memory = new Armed(arena, 2, UserfaultfdModes.WriteProtect, arena.WriteProtectFeature | UserfaultfdFeatures.WriteProtectUnpopulated);
            memory.Protect(0);
            arena.Expect(memory.Read(0).Through(), (byte)0);
            ExpectProtected(arena, memory);
            memory.Protect(1);
            memory.Region.Advise(memory.PageBytes, memory.PageBytes, MemoryAdvice.DontNeed);
            _ = memory.Write(1, 9).Through();
            arena.Expect(memory.IsQuiet, true);
        }),
        new('F', "surprise-write-protect-unpopulated", "without UFFD_FEATURE_WP_UNPOPULATED protecting an anonymous page that was never populated succeeds and does nothing", "uffd-unit-tests: wp-unpopulated", [MemoryKind.Anonymous], arena =>
        {
            using var memory = new Armed(arena, 1, UserfaultfdModes.WriteProtect, arena.WriteProtectFeature);
            memory.Protect(0);
            _ = memory.Write(0, 9).Through();
            arena.Expect(memory.IsQuiet, true);
        }),
        new('F', "write-protect-scan", "with UFFD_FEATURE_WP_ASYNC a write passes without a message, and PAGEMAP_SCAN tells once which pages were written and protects them again", "ioctl(PAGEMAP_SCAN)", ConformanceCase.All, Scan),
        new('F', "fork-drops-protection", "without UFFD_FEATURE_EVENT_FORK a child's pages are not protected, its parent's stay so", "uffd-unit-tests: wp-fork", ConformanceCase.All, arena => Fork(arena, isTold: false, isPinned: false)),
        new('F', "fork-keeps-protection", "with UFFD_FEATURE_EVENT_FORK a child's pages are protected as its parent's are", "uffd-unit-tests: wp-fork-with-event", ConformanceCase.All, arena => Fork(arena, isTold: true, isPinned: false)),
        new('F', "fork-drops-protection-pinned", "as fork-drops-protection, of a page that is pinned, so that the child has a copy at once", "uffd-unit-tests: wp-fork-pin", ConformanceCase.All, arena => Fork(arena, isTold: false, isPinned: true)),
        new('F', "fork-keeps-protection-pinned", "as fork-keeps-protection, of a page that is pinned, so that the child has a copy at once", "uffd-unit-tests: wp-fork-pin-with-event", ConformanceCase.All, arena => Fork(arena, isTold: true, isPinned: true)),
    ];

    /// <summary>Writes 9 to page 0, which has to fault.</summary>
    private static void ExpectProtected(Arena arena, Armed memory)
    {
        Touch touch = memory.Write(0, 9);
        UserfaultfdEvent fault = memory.NextFault(0);
        arena.Expect(fault.IsWriteProtect, true);
        arena.Expect(fault.IsWrite, true);
        memory.Unprotect(0);
        _ = touch.Through();
    }

    private static void Scan(Arena arena)
    {
        const ulong Pages = 8;
        using var memory = new Armed(arena, Pages, UserfaultfdModes.WriteProtect, arena.WriteProtectFeature | UserfaultfdFeatures.WriteProtectAsync);
        using var map = PageMap.Open(Environment.ProcessId);
        var ranges = new PageRange[Pages];
        for (ulong page = 0; page < Pages; page++)
        {
            _ = memory.Write(page, 1).Through();
        }

        arena.Expect(map.ProtectWritten(memory.At(0), memory.At(Pages), ranges, out _), 1);
        arena.Expect((ranges[0].Start, ranges[0].End), (memory.At(0), memory.At(Pages)));
        foreach (ulong page in (ReadOnlySpan<ulong>)[1, 2, 6])
        {
            _ = memory.Write(page, 2).Through();
        }

        arena.Expect(memory.IsQuiet, true);
        arena.Expect(map.ProtectWritten(memory.At(0), memory.At(Pages), ranges, out _), 2);
        arena.Expect((ranges[0].Start, ranges[0].End), (memory.At(1), memory.At(3)));
        arena.Expect((ranges[1].Start, ranges[1].End), (memory.At(6), memory.At(7)));
        arena.Expect(map.ProtectWritten(memory.At(0), memory.At(Pages), ranges, out _), 0, "pages written since");
    }

    private static void Fork(Arena arena, bool isTold, bool isPinned)
    {
        UserfaultfdFeatures told = isTold ? UserfaultfdFeatures.EventFork : UserfaultfdFeatures.None;

        // Kernels that lack this feature (before Linux 6.4) lose the protection of private huge pages at a fork, or leave the child with a page that it can never write: seen on 6.1.
        UserfaultfdFeatures keeps = arena.Kind == MemoryKind.HugetlbPrivate ? UserfaultfdFeatures.WriteProtectUnpopulated : UserfaultfdFeatures.None;
        using Armed memory = arena.ArmWriteProtect(1, told | keeps);
        memory.Place(0);
        using MemoryPin? pin = isPinned ? arena.Pin(memory.At(0)) : null;
        memory.Protect(0);
        Child child = memory.ForkWriter(0);
        if (isTold)
        {
            using var inherited = new Inherited(arena, memory);
            arena.Expect(inherited.NextFault(memory.At(0)).IsWriteProtect, true);
            arena.Expect(inherited.Userfaultfd.WriteProtect(memory.At(0), memory.PageBytes, UserfaultfdWriteProtectFlags.None), UserfaultfdResult.Done);
            arena.Expect(child.Through() is not null, true, "the child writes");
        }
        else
        {
            arena.Expect(child.Through() is not null, true, "the child writes");
            arena.Expect(memory.IsQuiet, true);
        }

        ExpectProtected(arena, memory);
    }
}
