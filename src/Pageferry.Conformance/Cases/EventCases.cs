using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>E: messages that are not faults, and what is refused while they are unread.</summary>
internal static class EventCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('E', "event-remove", "MADV_DONTNEED is told with its range, and waits until it is read", "uffd-unit-tests: events", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(4, UserfaultfdFeatures.EventRemove);
            memory.Place(1);
            Thread remover = memory.StartUser(() => memory.Region.Advise(memory.PageBytes, 2 * memory.PageBytes, MemoryAdvice.DontNeed));
            UserfaultfdEvent removal = memory.Next();
            arena.Expect(removal.Kind, UserfaultfdEventKind.Remove);
            arena.Expect(removal.Start, memory.At(1));
            arena.Expect(removal.End, memory.At(3));
            memory.Finish(remover, "the remover goes on when the message was read");
        }),
        new('E', "event-unmap", "munmap is told with its range", "uffd-unit-tests: events", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.EventUnmap);
            ulong start = memory.At(0);
            Thread unmapper = memory.StartUser(memory.Region.Dispose);
            UserfaultfdEvent unmapping = memory.Next();
            arena.Expect(unmapping.Kind, UserfaultfdEventKind.Unmap);
            arena.Expect(unmapping.Start, start);
            memory.Finish(unmapper, "the unmapper goes on when the message was read");
        }),
        new('E', "event-remap", "mremap is told with both addresses, and waits until it is read; the memory stays registered where it is then", "uffd-unit-tests: events", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2, UserfaultfdFeatures.EventRemap);
            memory.Place(0);
            ulong before = memory.At(0);
            ulong after = Remap(arena, memory);
            arena.Expect(memory.At(0), after);
            arena.Expect(memory.Read(0).Through(), Arena.ContentByte);
            Touch touch = memory.Read(1);
            _ = memory.NextFault(1);
            arena.Expect(memory.Userfaultfd.Copy(before, arena.Content, memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.NotRegistered);
            memory.Place(1);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('E', "event-remap-protected", "pages that are protected from writes stay so when they are moved", "uffd-unit-tests: events-wp", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1, UserfaultfdFeatures.EventRemap);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.WriteProtect), UserfaultfdResult.Done);
            _ = Remap(arena, memory);
            Touch touch = memory.Write(0, 9);
            arena.Expect(memory.NextFault(0).IsWriteProtect, true);
            memory.Unprotect(0);
            _ = touch.Through();
        }),
        new('E', "surprise-remap-unregisters", "without UFFD_FEATURE_EVENT_REMAP memory that is moved is not registered any more: what is missing there is zeros, and nobody is told", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            using var place = MappedRegion.MapAnonymous(memory.Region.Length);
            memory.Region.MoveTo(place);
            arena.Expect(memory.Read(0).Through(), (byte)0);
            arena.Expect(memory.IsQuiet, true);
        }),
        new('E', "event-fork", "a fork is told with a userfaultfd of the child's memory, and waits until it is read; what is missing there is the child's own fault", "uffd-unit-tests: events", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2, UserfaultfdFeatures.EventFork);
            memory.PlaceNumber(0);
            Child child = memory.ForkReader(1);
            using var inherited = new Inherited(arena, memory);
            _ = inherited.NextFault(memory.At(1));
            arena.Expect(memory.IsQuiet, true);
            arena.Expect(inherited.Userfaultfd.Copy(memory.At(0), arena.Content, memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.AlreadyPresent);
            arena.Expect(inherited.Userfaultfd.Copy(memory.At(1), arena.NumberContent, memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(child.Through(), Arena.ContentByte);
            if (!arena.IsShared)
            {
                Touch touch = memory.Read(1);
                _ = memory.NextFault(1);
                memory.Place(1);
                arena.Expect(touch.Through(), Arena.ContentByte);
            }
        }),
        new('E', "surprise-fork-unregisters", "without UFFD_FEATURE_EVENT_FORK a child's memory is not registered: what is missing there is zeros, and nobody is told", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(2);
            memory.PlaceNumber(0);
            arena.Expect(memory.ForkReader(0).Through(), Arena.ContentByte);
            arena.Expect(memory.ForkReader(1).Through(), (byte)0);
            arena.Expect(memory.IsQuiet, true);
        }),
        new('E', "event-remove-protected", "MADV_DONTNEED of a page that is protected from writes is told, and takes the protection along", "uffd-unit-tests: events-wp", [MemoryKind.Anonymous, MemoryKind.ShmemPrivate], arena =>
        {
            using Armed memory = arena.ArmWriteProtect(1, UserfaultfdFeatures.EventRemove);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.WriteProtect), UserfaultfdResult.Done);
            Remove(memory);
            Touch touch = memory.Write(0, 9);
            arena.Expect(memory.NextFault(0).IsWriteProtect, false);
            memory.Place(0);
            _ = touch.Through();
        }),
        new('E', "mmap-changing", "while a removal is unread COPY, ZEROPAGE, CONTINUE, POISON, MOVE and WRITEPROTECT are EAGAIN; WAKE works", "uffd-unit-tests: mmap-changing", ConformanceCase.All, arena =>
            WhileRemoving(arena, (memory, _) =>
            {
                (Userfaultfd userfaultfd, ulong page, ulong length) = (memory.Userfaultfd, memory.At(2), memory.PageBytes);
                arena.Expect(userfaultfd.ZeroPage(page, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Retry);
                arena.Expect(userfaultfd.Continue(page, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Retry);
                arena.Expect(userfaultfd.WriteProtect(page, length, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.Retry);
                arena.Expect(userfaultfd.WriteProtect(page, length, UserfaultfdWriteProtectFlags.None), UserfaultfdResult.Retry);
                if (Arena.Offers(UserfaultfdFeatures.Poison))
                {
                    arena.Expect(userfaultfd.Poison(page, length, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Retry);
                }

                if (Arena.Offers(UserfaultfdFeatures.Move))
                {
                    arena.Expect(userfaultfd.Move(page, arena.Content, length, UserfaultfdMoveFlags.None, out _), UserfaultfdResult.Retry);
                }

                userfaultfd.Wake(memory.At(0), length);
            })),
        new('E', "surprise-mmap-changing-count", "the count of a request that a removal puts off is -11, or on older kernels what the caller had put there: put 0 there before each request", "observed: -11 on 6.12, untouched on 6.1", ConformanceCase.All, arena =>
            WhileRemoving(arena, (memory, copied) =>
            {
                (Userfaultfd userfaultfd, ulong page, ulong length) = (memory.Userfaultfd, memory.At(2), memory.PageBytes);
                ExpectUntouchedOrRefused(arena, copied);
                _ = userfaultfd.ZeroPage(page, length, UserfaultfdCopyFlags.None, out long zeroed);
                ExpectUntouchedOrRefused(arena, zeroed);
                _ = userfaultfd.Continue(page, length, UserfaultfdCopyFlags.None, out long mapped);
                ExpectUntouchedOrRefused(arena, mapped);
                if (Arena.Offers(UserfaultfdFeatures.Poison))
                {
                    _ = userfaultfd.Poison(page, length, UserfaultfdCopyFlags.None, out long poisoned);
                    ExpectUntouchedOrRefused(arena, poisoned);
                }

                if (Arena.Offers(UserfaultfdFeatures.Move))
                {
                    _ = userfaultfd.Move(page, arena.Content, length, UserfaultfdMoveFlags.None, out long moved);
                    ExpectUntouchedOrRefused(arena, moved);
                }
            })),
        new('E', "removed-is-missing", "a page that was removed is missing again, and what waited for it faults again", "observed on 6.18", [MemoryKind.Anonymous, MemoryKind.ShmemPrivate, MemoryKind.HugetlbPrivate], arena =>
        {
            using Armed memory = arena.ArmMissing(1, UserfaultfdFeatures.EventRemove);
            memory.Place(0);
            Remove(memory);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Place(0);
            _ = touch.Through();
        }),
    ];

    /// <summary>Removes page 0 and reads of it.</summary>
    private static void Remove(Armed memory)
    {
        Thread remover = memory.StartUser(() => memory.Region.Advise(0, memory.PageBytes, MemoryAdvice.DontNeed));
        _ = memory.Next();
        memory.Finish(remover, "the remover goes on when the message was read");
    }

    /// <summary>Moves the memory and reads of it.</summary>
    /// <returns>Where it is then.</returns>
    private static ulong Remap(Arena arena, Armed memory)
    {
        (ulong before, ulong length) = (memory.At(0), memory.Region.Length);
        using var place = MappedRegion.MapAnonymous(length);
        ulong after = place.Address;
        Thread mover = memory.StartUser(() => memory.Region.MoveTo(place));
        UserfaultfdEvent remap = memory.Next();
        arena.Expect(remap.Kind, UserfaultfdEventKind.Remap);
        arena.Expect((remap.RemapFrom, remap.RemapTo, remap.RemapLength), (before, after, length));
        memory.Finish(mover, "the mover goes on when the message was read");
        return after;
    }

    /// <summary>Does something between a removal and the reading of its message; it is handed the count of the request that was put off first.</summary>
    private static void WhileRemoving(Arena arena, Action<Armed, long> act)
    {
        using Armed memory = arena.ArmWriteProtect(4, UserfaultfdFeatures.EventRemove);
        memory.Place(3);
        Thread remover = memory.StartUser(() => memory.Region.Advise(3 * memory.PageBytes, memory.PageBytes, MemoryAdvice.DontNeed));

        // The message is on its way when the first request is put off; page 1 is placed before that, then page 1 again is EEXIST.
        long done = 0;
        bool putOff = SpinWait.SpinUntil(() => memory.Copy(1, 1, out done) == UserfaultfdResult.Retry, TimeSpan.FromSeconds(10));
        arena.Expect(putOff, true);
        act(memory, done);
        _ = memory.Next();
        memory.Finish(remover, "the remover goes on when the message was read");
        memory.Place(2);
    }

    private static void ExpectUntouchedOrRefused(Arena arena, long count) =>
        arena.Expect(count is 0 or -(long)Errno.EAGAIN, true, $"the count is 0 or -11, not {count}");
}
