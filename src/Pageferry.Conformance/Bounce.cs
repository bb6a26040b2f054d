using System.Buffers.Binary;
using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>
/// What uffd-stress does. Each page has a lock and a counter, which threads count up while the page is placed under them. When all are through, what the pages have becomes the content
/// of the next round, and the pages are removed. A page that was placed twice, or not whole, has lost what was counted.
/// </summary>
internal sealed class Bounce
{
    private const int Lockers = 4;
    private const ulong CounterAt = 512;

    private readonly Arena _arena;
    private readonly Armed _memory;
    private readonly MappedRegion _content;
    private readonly UserfaultfdCopyFlags _flags;

    /// <summary>What each page's counter has to be; changed under the page's lock.</summary>
    private readonly ulong[] _counted;
    private string? _failure;

    private Bounce(Arena arena, Armed memory, MappedRegion content, bool isProtected)
    {
        _arena = arena;
        _memory = memory;
        _content = content;
        _flags = isProtected ? UserfaultfdCopyFlags.WriteProtect : UserfaultfdCopyFlags.None;
        _counted = new ulong[(int)(content.Length / arena.PageBytes)];
    }

    /// <summary>Runs all rounds.</summary>
    /// <param name="arena">What the case is given.</param>
    /// <param name="isProtected">Whether pages are protected from writes too.</param>
    /// <param name="disturb">Is done while threads count, in each round.</param>
    internal static void Run(Arena arena, bool isProtected, Action<Armed>? disturb = null)
    {
        // A huge page takes as long as hundreds of small ones.
        (ulong pages, int rounds, int counts) = arena.IsHuge ? (3UL, 2, 30) : (12UL, 8, 60);
        using Armed memory = isProtected ? arena.ArmWriteProtect(pages) : arena.ArmMissing(pages);
        using var content = MappedRegion.MapAnonymous(pages * memory.PageBytes);
        var bounce = new Bounce(arena, memory, content, isProtected);
        for (int round = 0; round < rounds; round++)
        {
            bounce.RunRound(round, counts, disturb);
        }
    }

    private void RunRound(int round, int counts, Action<Armed>? disturb)
    {
        using var stop = new EventFd();
        Thread[] handlers = [_memory.StartUser(() => Handle(stop)), _memory.StartUser(() => Handle(stop))];
        try
        {
            Thread copier = _memory.StartUser(CopyAll);
            Thread[] lockers = [.. Enumerable.Range(0, Lockers).Select(i => _memory.StartUser(() => Count(new Random((round * Lockers) + i), counts)))];
            disturb?.Invoke(_memory);
            foreach (Thread user in (Thread[])[copier, .. lockers])
            {
                _memory.Finish(user, $"every thread goes on in round {round}");
            }
        }
        finally
        {
            stop.Signal();
            Array.ForEach(handlers, handler => _memory.Finish(handler, "a handler ends when it is told to"));
        }

        if (_failure is { } failure)
        {
            throw new CaseFailedException($"{failure} in round {round}");
        }

        TakeContent(round);
        Remove();
    }

    /// <summary>Places what is asked for, until it is told to stop.</summary>
    private void Handle(EventFd stop)
    {
        using var events = new UserfaultfdEventBuffer(8);
        var poll = new Poll(_memory.Userfaultfd.Descriptor, stop.Descriptor);
        while (true)
        {
            _ = poll.Wait(Timeout.Infinite);
            int read = poll.IsReadable(0) ? _memory.Userfaultfd.Read(events) : 0;
            for (int i = 0; i < read; i++)
            {
                ulong page = (events[i].Address - _memory.At(0)) / _memory.PageBytes;
                if (events[i].IsWriteProtect)
                {
                    _memory.Unprotect(page);
                }
                else if (Place(page) != UserfaultfdResult.Done)
                {
                    _memory.Userfaultfd.Wake(_memory.At(page), _memory.PageBytes);
                }
            }

            if (poll.IsReadable(1))
            {
                return;
            }
        }
    }

    /// <summary>Places every page, asked for or not, and protects the first half of them again.</summary>
    private void CopyAll()
    {
        for (ulong page = 0; page < (ulong)_counted.Length; page++)
        {
            UserfaultfdResult first = Place(page);
            UserfaultfdResult second = Place(page);
            if (first is not (UserfaultfdResult.Done or UserfaultfdResult.AlreadyPresent) || second != UserfaultfdResult.AlreadyPresent)
            {
                Fail($"page {page}: expected to be placed once, found {first} and {second}");
            }
        }

        for (ulong page = 0; _flags == UserfaultfdCopyFlags.WriteProtect && page < (ulong)_counted.Length / 2; page++)
        {
            _memory.Protect(page);
        }
    }

    private UserfaultfdResult Place(ulong page) =>
        _memory.Userfaultfd.Copy(_memory.At(page), _content.Address + (page * _memory.PageBytes), _memory.PageBytes, _flags, out _);

    /// <summary>Counts up the counters of pages at random, each under its page's lock.</summary>
    private void Count(Random random, int counts)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        for (int i = 0; i < counts; i++)
        {
            int page = random.Next(_counted.Length);
            ulong begin = (ulong)page * _memory.PageBytes;
            _memory.Region.Lock(begin);
            _memory.Region.CopyOut(begin + CounterAt, word);
            ulong found = BinaryPrimitives.ReadUInt64LittleEndian(word);
            if (found != _counted[page])
            {
                Fail($"page {page}: expected {_counted[page]} counts, found {found}");
            }

            _counted[page]++;
            BinaryPrimitives.WriteUInt64LittleEndian(word, _counted[page]);
            _memory.Region.CopyIn(begin + CounterAt, word);
            _memory.Region.CopyIn(begin + _memory.PageBytes - sizeof(ulong), word);
            _memory.Region.Unlock(begin);
        }
    }

    /// <summary>Makes what the pages have, all of which are placed, the content of the next round.</summary>
    private void TakeContent(int round)
    {
        for (int page = 0; page < _counted.Length; page++)
        {
            ulong begin = (ulong)page * _memory.PageBytes;
            Span<byte> bytes = _content.Span(begin, (int)_memory.PageBytes);
            _memory.Region.CopyOut(begin, bytes);
            _arena.Expect(BinaryPrimitives.ReadUInt64LittleEndian(bytes[(int)CounterAt..]), _counted[page], $"counts of page {page} after round {round}");
            _arena.Expect(BinaryPrimitives.ReadUInt64LittleEndian(bytes[^sizeof(ulong)..]), _counted[page], $"the end of page {page} after round {round}");
        }
    }

    private void Remove()
    {
        if (_arena.IsShared)
        {
            _memory.MemoryFile!.PunchHole(0, _memory.Region.Length);
        }
        else
        {
            _memory.Region.Advise(0, _memory.Region.Length, MemoryAdvice.DontNeed);
        }
    }

    private void Fail(string failure) => _ = Interlocked.CompareExchange(ref _failure, failure, null);
}
