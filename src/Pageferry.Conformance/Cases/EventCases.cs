using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>E: messages that are not faults, and what is refused while they are unread.</summary>
internal static class EventCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('E', "event-remove", "MADV_DONTNEED is told with its range, and waits until it is read", "uffd-unit-tests: events", [MemoryKind.Anonymous, MemoryKind.Shmem], arena =>
        {
            using Armed memory = arena.ArmMissing(4, UserfaultfdFeatures.EventRemove);
            memory.Place(1);
            Thread remover = memory.StartUser(() => memory.Region.Advise(memory.PageBytes, 2 * memory.PageBytes, MemoryAdvice.DontNeed));
            UserfaultfdEvent removal = memory.Next();
            arena.Expect(removal.Kind, UserfaultfdEventKind.Remove);
            arena.Expect(removal.Start, memory.At(1));
            arena.Expect(removal.End, memory.At(3));
            arena.Expect(remover.Join(TimeSpan.FromSeconds(10)), true, "the remover goes on when the message was read");
        }),
        new('E', "event-unmap", "munmap is told with its range", "uffd-unit-tests: events", [MemoryKind.Anonymous, MemoryKind.Shmem], arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.EventUnmap);
            ulong start = memory.At(0);
            Thread unmapper = memory.StartUser(memory.Region.Dispose);
            UserfaultfdEvent unmapping = memory.Next();
            arena.Expect(unmapping.Kind, UserfaultfdEventKind.Unmap);
            arena.Expect(unmapping.Start, start);
            arena.Expect(unmapper.Join(TimeSpan.FromSeconds(10)), true, "the unmapper goes on when the message was read");
        }),
        new('E', "mmap-changing", "while a removal is unread COPY, ZEROPAGE and CONTINUE are EAGAIN; WAKE works", "uffd-unit-tests: mmap-changing", [MemoryKind.Anonymous, MemoryKind.Shmem], arena =>
            WhileRemoving(arena, (memory, _) =>
            {
                arena.Expect(memory.Userfaultfd.ZeroPage(memory.At(2), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Retry);
                if (arena.IsShared)
                {
                    arena.Expect(memory.Userfaultfd.Continue(memory.At(2), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Retry);
                }

                memory.Userfaultfd.Wake(memory.At(0), memory.PageBytes);
            })),
        new('E', "mmap-changing-count", "surprise: the count of a request that a removal puts off is -11, or on older kernels what the caller had put there: put 0 there before each request", "observed: -11 on 6.12, untouched on 6.1", [MemoryKind.Anonymous, MemoryKind.Shmem], arena =>
            WhileRemoving(arena, (memory, copied) =>
            {
                ExpectUntouchedOrRefused(arena, copied);
                _ = memory.Userfaultfd.ZeroPage(memory.At(2), memory.PageBytes, UserfaultfdCopyFlags.None, out long zeroed);
                ExpectUntouchedOrRefused(arena, zeroed);
                if (arena.IsShared)
                {
                    _ = memory.Userfaultfd.Continue(memory.At(2), memory.PageBytes, UserfaultfdCopyFlags.None, out long mapped);
                    ExpectUntouchedOrRefused(arena, mapped);
                }
            })),
        new('E', "removed-is-missing", "a page that was removed is missing again, and what waited for it faults again", "observed on 6.18", [MemoryKind.Anonymous], arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.EventRemove);
            memory.Place(0);
            Thread remover = memory.StartUser(() => memory.Region.Advise(0, memory.PageBytes, MemoryAdvice.DontNeed));
            _ = memory.Next();
            _ = remover.Join(TimeSpan.FromSeconds(10));
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Place(0);
            _ = touch.Through();
        }),
    ];

    /// <summary>Does something between a removal and the reading of its message; it is handed the count of the request that was put off first.</summary>
    private static void WhileRemoving(Arena arena, Action<Armed, long> act)
    {
        using Armed memory = arena.IsShared ? arena.ArmMinor(4, UserfaultfdFeatures.EventRemove) : arena.ArmMissing(4, UserfaultfdFeatures.EventRemove);
        memory.Place(3);
        Thread remover = memory.StartUser(() => memory.Region.Advise(3 * memory.PageBytes, memory.PageBytes, MemoryAdvice.DontNeed));

        // The message is on its way when the first request is put off; page 1 is placed before that, then page 1 again is EEXIST.
        long done = 0;
        bool putOff = SpinWait.SpinUntil(() => memory.Copy(1, 1, out done) == UserfaultfdResult.Retry, TimeSpan.FromSeconds(10));
        arena.Expect(putOff, true);
        act(memory, done);
        _ = memory.Next();
        arena.Expect(remover.Join(TimeSpan.FromSeconds(10)), true, "the remover goes on when the message was read");
        memory.Place(2);
    }

    private static void ExpectUntouchedOrRefused(Arena arena, long count) =>
        arena.Expect(count is 0 or -(long)Errno.EAGAIN, true, $"the count is 0 or -11, not {count}");
}
