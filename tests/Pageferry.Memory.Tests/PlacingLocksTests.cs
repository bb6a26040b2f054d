using System.Diagnostics;

namespace Pageferry.Memory.Tests;

/// <summary>Who waits for whom between the lanes that place pages and the thread that reads faults.</summary>
public class PlacingLocksTests
{
    private const int Lanes = 2;

    /// <summary>More lanes than these share.</summary>
    private const int Locks = 8;

    [Fact]
    public void Who_wants_all_waits_for_the_holds_that_are_under_way_and_no_others()
    {
        var locks = new PlacingLocks();
        locks.Warm();
        bool over = false;
        long holds = 0;
        Thread[] lanes = [.. Enumerable.Range(0, Lanes).Select(lane => new Thread(() =>
        {
            Lock mine = locks.Assign();
            while (!Volatile.Read(ref over))
            {
                using (locks.Enter(mine))
                {
                    Spin(TimeSpan.FromMicroseconds(50));
                }

                _ = Interlocked.Increment(ref holds);
            }
        }))];
        Array.ForEach(lanes, thread => thread.Start());
        var ended = new List<long>();
        for (int i = 0; i < 200; i++)
        {
            Thread.Sleep(1);
            long before = Interlocked.Read(ref holds);
            using (locks.EnterAll())
            {
                ended.Add(Interlocked.Read(ref holds) - before);
            }
        }

        Volatile.Write(ref over, true);
        Array.ForEach(lanes, thread => thread.Join());
        ended.Sort();

        // One that is under way, and one that has looked already: of each lane. A busy machine may let one go by now and then; who only takes what is free at the
        // right moment waits for hundreds.
        Assert.InRange((int)ended[^20], 0, 2 * Lanes);
    }

    [Fact]
    public void Who_holds_all_may_place_while_another_thread_wants_all()
    {
        var locks = new PlacingLocks();
        Lock lane = locks.Assign();
        Thread other;
        using (locks.EnterAll())
        {
            other = new Thread(() =>
            {
                using (locks.EnterAll())
                {
                }
            });
            other.Start();
            Assert.True(SpinWait.SpinUntil(() => other.ThreadState.HasFlag(System.Threading.ThreadState.WaitSleepJoin), TimeSpan.FromSeconds(10)));
            using (locks.Enter(lane))
            {
            }
        }

        Assert.True(other.Join(TimeSpan.FromSeconds(10)));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Who_waits_for_a_lock_that_was_warmed_allocates_nothing(bool warmed)
    {
        var locks = new PlacingLocks();
        var others = new PlacingLocks();
        others.Warm();
        if (warmed)
        {
            locks.Warm();
        }

        // Code that runs first may allocate.
        _ = AllocatedWaitingForEach(others);
        Assert.Equal(warmed, AllocatedWaitingForEach(locks) == 0);
    }

    /// <summary>Has a thread wait for each of the lanes' locks, and then for the turnstile.</summary>
    /// <returns>Bytes that it allocated, without those of its first waiting.</returns>
    private static long AllocatedWaitingForEach(PlacingLocks locks)
    {
        Lock[] lanes = [.. Enumerable.Range(0, Locks).Select(_ => locks.Assign())];
        var first = new Lock();
        int next = -1;
        long allocated = 0;
        var waiting = new Thread(() =>
        {
            Volatile.Write(ref next, 0);
            lock (first)
            {
            }

            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < Locks; i++)
            {
                Volatile.Write(ref next, i + 1);
                lock (lanes[i])
                {
                }
            }

            Volatile.Write(ref next, Locks + 1);
            using (locks.EnterAll())
            {
                allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            }
        });
        var ahead = new Thread(() =>
        {
            using (locks.EnterAll())
            {
            }
        });
        first.Enter();
        Array.ForEach(lanes, lane => lane.Enter());
        waiting.Start();
        for (int i = 0; i <= Locks; i++)
        {
            AwaitWaiting(waiting, () => Volatile.Read(ref next) == i);
            if (i == Locks)
            {
                // Who is ahead holds the turnstile while it waits for a lane's lock, and the thread waits for the turnstile.
                lanes[0].Enter();
                ahead.Start();
                AwaitWaiting(ahead, static () => true);
            }

            (i == 0 ? first : lanes[i - 1]).Exit();
        }

        AwaitWaiting(waiting, () => Volatile.Read(ref next) == Locks + 1);
        lanes[0].Exit();
        ahead.Join();
        waiting.Join();
        return allocated;
    }

    private static void AwaitWaiting(Thread thread, Func<bool> isThere) => Assert.True(
        SpinWait.SpinUntil(() => isThere() && thread.ThreadState.HasFlag(System.Threading.ThreadState.WaitSleepJoin), TimeSpan.FromSeconds(10)));

    private static void Spin(TimeSpan time)
    {
        long until = Stopwatch.GetTimestamp() + (long)(time.TotalSeconds * Stopwatch.Frequency);
        while (Stopwatch.GetTimestamp() < until)
        {
        }
    }
}
