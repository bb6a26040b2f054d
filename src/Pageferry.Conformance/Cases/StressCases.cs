using System.Buffers.Binary;
using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>K: many threads, few pages, and no content lost.</summary>
internal static class StressCases
{
    private const int Rounds = 40;
    private const ulong Pages = 16;
    private const int Touchers = 4;

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('K', "bounce", "pages that are placed by two handlers at once, touched by four threads and removed again are whole, the right ones, and nobody waits for ever", "uffd-stress", [MemoryKind.Anonymous, MemoryKind.Shmem], Bounce),
    ];

    private static void Bounce(Arena arena)
    {
        using Armed memory = arena.ArmMissing(Pages);
        using var content = MappedRegion.MapAnonymous(Pages * memory.PageBytes);
        using var stop = new EventFd();
        using var rounds = new ReaderWriterLockSlim();
        var handlers = new[] { Handle(memory, content, rounds, stop), Handle(memory, content, rounds, stop) };
        try
        {
            Bounce(arena, memory, content, rounds);
        }
        finally
        {
            stop.Signal();
            foreach (Thread handler in handlers)
            {
                handler.Join();
            }
        }
    }

    private static void Bounce(Arena arena, Armed memory, MappedRegion content, ReaderWriterLockSlim rounds)
    {
        var random = new Random(1);
        for (ulong round = 1; round <= Rounds; round++)
        {
            rounds.EnterWriteLock();
            Renew(memory, content, round);
            rounds.ExitWriteLock();

            int[] seeds = [.. Enumerable.Range(0, Touchers).Select(_ => random.Next())];
            ulong wanted = round;
            var touchers = seeds.Select(seed => new Toucher(memory, wanted, seed)).ToArray();
            foreach (Toucher toucher in touchers)
            {
                if (!toucher.Thread.Join(TimeSpan.FromSeconds(20)))
                {
                    throw new CaseFailedException($"expected every thread to go on, found one waiting in round {round}");
                }

                arena.Expect(toucher.Wrong, 0, $"pages found wrong in round {round}");
            }
        }
    }

    /// <summary>
    /// Removes the last round's pages and makes the next one's content. Of several messages of one page the last may be answered after
    /// all threads have gone on: so no page is placed in here, and one placed later has the next round's content.
    /// </summary>
    private static void Renew(Armed memory, MappedRegion content, ulong round)
    {
        if (memory.MemoryFile is { } file)
        {
            file.PunchHole(0, file.Length);
        }
        else
        {
            memory.Region.Advise(0, memory.Region.Length, MemoryAdvice.DontNeed);
        }

        // Every word of a page says whose it is and of which round.
        for (ulong page = 0; page < Pages; page++)
        {
            Fill(content.Span(page * memory.PageBytes, (int)memory.PageBytes), (round << 32) | page);
        }
    }

    private static Thread Handle(Armed memory, MappedRegion content, ReaderWriterLockSlim rounds, EventFd stop)
    {
        var thread = new Thread(() =>
        {
            using var events = new UserfaultfdEventBuffer(8);
            var poll = new Poll(memory.Userfaultfd.Descriptor, stop.Descriptor);
            while (true)
            {
                _ = poll.Wait(Timeout.Infinite);
                if (poll.IsReadable(1))
                {
                    return;
                }

                int read = memory.Userfaultfd.Read(events);
                for (int i = 0; i < read; i++)
                {
                    ulong offset = (events[i].Address - memory.Region.Address) / memory.PageBytes * memory.PageBytes;
                    rounds.EnterReadLock();
                    UserfaultfdResult result = memory.Userfaultfd.Copy(
                        memory.Region.Address + offset, content.Address + offset, memory.PageBytes, UserfaultfdCopyFlags.None, out _);
                    rounds.ExitReadLock();
                    if (result != UserfaultfdResult.Done)
                    {
                        memory.Userfaultfd.Wake(memory.Region.Address + offset, memory.PageBytes);
                    }
                }
            }
        })
        { IsBackground = true };
        thread.Start();
        return thread;
    }

    private static void Fill(Span<byte> page, ulong word)
    {
        for (int at = 0; at < page.Length; at += sizeof(ulong))
        {
            BinaryPrimitives.WriteUInt64LittleEndian(page[at..], word);
        }
    }

    /// <summary>Reads every page once, in an order of its own, at both ends.</summary>
    private sealed class Toucher
    {
        internal Toucher(Armed memory, ulong round, int seed)
        {
            Thread = memory.StartUser(() =>
            {
                var order = Enumerable.Range(0, (int)Pages).ToArray();
                new Random(seed).Shuffle(order);
                Span<byte> word = stackalloc byte[sizeof(ulong)];
                foreach (int page in order)
                {
                    ulong begin = (ulong)page * memory.PageBytes;
                    foreach (ulong at in (ReadOnlySpan<ulong>)[begin, begin + memory.PageBytes - sizeof(ulong)])
                    {
                        memory.Region.CopyOut(at, word);
                        Wrong += BinaryPrimitives.ReadUInt64LittleEndian(word) == ((round << 32) | (uint)page) ? 0 : 1;
                    }
                }
            });
        }

        internal Thread Thread { get; }

        internal int Wrong { get; private set; }
    }
}
