using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What the destination's receivers share: whether the guest has switched over, which round is due, what arrived damaged.</summary>
internal sealed class IncomingPages(FaultEngine engine, MigrationCounters counters, DemandRequester requester, int backgroundConnections, ReceivedDigests? digests)
{
    private readonly object _gate = new();
    private readonly PageBitmap _damaged = new(engine.Memory.PageCount);
    private int _reached;
    private uint _roundsDone;
    private volatile uint _switchover;
    private bool _ended;
    private int _beingTaken;
    private volatile bool _roundsOver;

    internal FaultEngine Engine => engine;

    internal MigrationCounters Counters => counters;

    internal int BackgroundConnections => backgroundConnections;

    /// <summary>The digests of what arrived; null unless the source asked for them.</summary>
    internal ReceivedDigests? Digests => digests;

    /// <summary>The generation of pages that come after the switchover; 0 before it.</summary>
    internal uint Switchover => _switchover;

    /// <summary>Hears that a round is here on all connections.</summary>
    internal Action<uint>? RoundDone { get; set; }

    /// <summary>The guest has switched over before: an engine that died had taken in what came until then.</summary>
    internal void GoOnAfter(uint switchover)
    {
        EndRounds();
        _switchover = switchover;
    }

    /// <summary>Pages of a round begin to be taken in.</summary>
    internal void Begin()
    {
        _ = Interlocked.Increment(ref _beingTaken);
        if (_roundsOver)
        {
            throw new ProtocolException("The source sent pages of a round after the last one.");
        }
    }

    /// <summary>Pages of a round were taken in.</summary>
    internal void Finish() => _ = Interlocked.Decrement(ref _beingTaken);

    /// <summary>
    /// The last round is over: from now on pages can be discarded. One that is discarded while it is refreshed would be waited for, by the thread that refreshes
    /// it, for ever.
    /// </summary>
    internal void EndRounds()
    {
        _roundsOver = true;
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref _beingTaken) != 0)
        {
            throw new ProtocolException("The source discarded pages in the middle of a round.");
        }
    }

    /// <summary>A connection has received all of a round.</summary>
    internal void ReachBarrier(uint generation)
    {
        lock (_gate)
        {
            if (_switchover != 0 || generation != _roundsDone + 1)
            {
                throw new ProtocolException($"The source sent a barrier of round {generation} where round {_roundsDone + 1} is due{(_switchover != 0 ? ", after the switchover" : string.Empty)}.");
            }

            _reached++;
            if (_reached < backgroundConnections)
            {
                return;
            }

            _reached = 0;
            _roundsDone = generation;
            RoundDone?.Invoke(generation);
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Nothing more comes: who waits for a round goes on.</summary>
    internal void End()
    {
        lock (_gate)
        {
            _ended = true;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits until all rounds before a switchover are here, and discards pages that arrived damaged last: from now on pages are placed and not refreshed.</summary>
    /// <param name="generation">The switchover's generation.</param>
    internal void SwitchOver(uint generation)
    {
        lock (_gate)
        {
            while (_roundsDone + 1 < generation && !_ended)
            {
                _ = Monitor.Wait(_gate);
            }

            if (_roundsDone + 1 != generation)
            {
                throw new ProtocolException($"The source switched over to generation {generation} after {_roundsDone} rounds.");
            }

            EndRounds();
            _switchover = generation;
        }

        for (ulong page = _damaged.Next(0, _damaged.PageCount); page < _damaged.PageCount; page = _damaged.Next(page + 1, _damaged.PageCount))
        {
            engine.Discard(page, 1);
        }
    }

    /// <summary>Pages arrived damaged: they are asked for again, and nothing of them is shown to the guest.</summary>
    internal void TakeDamaged(ulong first, ulong pages)
    {
        counters.AddDamaged(BitOperations.PopCount(pages));
        for (ulong left = pages; left != 0; left &= left - 1)
        {
            _ = _damaged.Add(first + (ulong)BitOperations.TrailingZeroCount(left));
        }

        requester.Resend(first, pages);
    }

    /// <summary>Pages arrived whole.</summary>
    internal void TakeWhole(ulong first, ulong pages)
    {
        if (counters.Damaged == 0)
        {
            return;
        }

        for (; pages != 0; pages &= pages - 1)
        {
            _ = _damaged.Take(first + (ulong)BitOperations.TrailingZeroCount(pages));
        }
    }
}
