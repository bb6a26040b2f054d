using System.Diagnostics;

namespace Pageferry.Memory.Tests;

/// <summary>Who waits for whom between the lanes that place pages and the thread that reads faults.</summary>
public class PlacingLocksTests
{
    private const int Lanes = 2;

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

    private static void Spin(TimeSpan time)
    {
        long until = Stopwatch.GetTimestamp() + (long)(time.TotalSeconds * Stopwatch.Frequency);
        while (Stopwatch.GetTimestamp() < until)
        {
        }
    }
}
