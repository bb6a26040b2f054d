using System.Diagnostics;
using ThreadState = System.Threading.ThreadState;

namespace Pageferry.Memory;

/// <summary>
/// What keeps placing apart from whatever must not happen meanwhile: a lane holds one of the locks while it places pages; all are held while events are read
/// and acted upon, and while pages change state for arming. So no page is placed between a removal's or an arming's beginning and its effect on the page
/// states, and lanes don't wait for each other.
/// </summary>
internal sealed class PlacingLocks
{
    /// <summary>Each costs the reading of events some 20 ns; more lanes than these share. A migration has one for each connection, and one more where there is one in the background.</summary>
    private const int Count = 8;

    private const int WarmingStackBytes = 64 << 10;

    private static readonly TimeSpan s_longestWarming = TimeSpan.FromMilliseconds(100);

    private readonly Lock[] _locks = [.. Enumerable.Range(0, Count).Select(_ => new Lock())];

    /// <summary>Is held by who enters all, so that lanes wait behind it: one that goes on placing would take its lock again before a thread that waits for it has woken.</summary>
    private readonly Lock _turnstile = new();
    private int _wanting;
    private int _lanes;

    /// <summary>A lock makes its event when it is waited for the first time: now, and not on the fault path.</summary>
    internal void Warm()
    {
        int next = 0;
        var waiting = new Thread(
            () =>
            {
                for (int i = 0; i <= Count; i++)
                {
                    Volatile.Write(ref next, i);
                    lock (At(i))
                    {
                    }
                }
            },
            WarmingStackBytes);
        _turnstile.Enter();
        EnterEach();
        waiting.Start();
        long began = Stopwatch.GetTimestamp();
        for (int i = 0; i <= Count; i++)
        {
            while ((Volatile.Read(ref next) != i || !waiting.ThreadState.HasFlag(ThreadState.WaitSleepJoin)) && Stopwatch.GetElapsedTime(began) < s_longestWarming)
            {
                _ = Thread.Yield();
            }

            At(i).Exit();
        }

        waiting.Join();
    }

    /// <summary>The lock that a lane, or a thread that places without one, holds from now on.</summary>
    internal Lock Assign() => _locks[(uint)Interlocked.Increment(ref _lanes) % Count];

    /// <summary>Holds a lane's lock until the scope ends. Who wants all goes first.</summary>
    internal Lock.Scope Enter(Lock one)
    {
        if (Volatile.Read(ref _wanting) > 0 && !one.IsHeldByCurrentThread)
        {
            lock (_turnstile)
            {
            }
        }

        return one.EnterScope();
    }

    /// <summary>Holds all until the scope ends.</summary>
    internal AllScope EnterAll()
    {
        _ = Interlocked.Increment(ref _wanting);
        lock (_turnstile)
        {
            EnterEach();
        }

        _ = Interlocked.Decrement(ref _wanting);
        return new AllScope(_locks);
    }

    /// <summary>The locks, and behind them the turnstile.</summary>
    private Lock At(int number) => number < Count ? _locks[number] : _turnstile;

    private void EnterEach()
    {
        foreach (Lock one in _locks)
        {
            one.Enter();
        }
    }

    /// <summary>All locks held.</summary>
    internal readonly ref struct AllScope(Lock[] locks)
    {
        /// <summary>Lets them go.</summary>
        internal void Dispose()
        {
            foreach (Lock one in locks)
            {
                one.Exit();
            }
        }
    }
}
