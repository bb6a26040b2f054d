using System.Diagnostics;

namespace Pageferry.Linux.Tests;

public class CurrentThreadTests
{
    [Fact]
    public void A_thread_stays_on_the_cpu_that_it_is_told()
    {
        string? allowed = null;
        var thread = new Thread(() =>
        {
            CurrentThread.RunOn(0);
            allowed = File.ReadLines("/proc/thread-self/status").First(line => line.StartsWith("Cpus_allowed_list", StringComparison.Ordinal));
        });
        thread.Start();
        thread.Join();
        Assert.Equal("Cpus_allowed_list:\t0", allowed);
    }

    [Fact]
    public void A_cpu_that_is_not_there_is_refused_by_name()
    {
        LinuxException refused = Assert.Throws<LinuxException>(() => CurrentThread.RunOn(1023));
        Assert.Equal(Errno.EINVAL, refused.Errno);
        Assert.Contains("CPU 1023", refused.Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => CurrentThread.RunOn(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => CurrentThread.RunOn(1024));
    }

    [Fact]
    public void A_thread_gets_the_time_slice_that_it_asks_for_and_keeps_its_priority()
    {
        bool isTaken = false;
        Interop.sched_attr before = default;
        Interop.sched_attr after = default;
        var thread = new Thread(() =>
        {
            before = Attributes();
            isTaken = CurrentThread.TrySetSlice(TimeSpan.FromMicroseconds(250));
            after = Attributes();
        });
        thread.Start();
        thread.Join();
        Assert.True(isTaken);
        Assert.Equal(before.sched_nice, after.sched_nice);
        Assert.Equal(before.sched_policy, after.sched_policy);

        // Kernels before 6.12 tell no slice at all.
        Assert.Equal(before.sched_runtime == 0 ? 0u : 250_000u, after.sched_runtime);

        static Interop.sched_attr Attributes()
        {
            Assert.Equal(0, Interop.SchedGetattr(Interop.SYS_sched_getattr, 0, out Interop.sched_attr attributes, 56, 0));
            return attributes;
        }
    }

    [Fact]
    public void A_sleep_shorter_than_a_millisecond_is_one()
    {
        // A signal may end one sleep early, and a busy machine may prolong one: not all of ten.
        TimeSpan pause = TimeSpan.FromMicroseconds(200);
        TimeSpan[] slept = [.. Enumerable.Range(0, 10).Select(_ =>
        {
            long begin = Stopwatch.GetTimestamp();
            CurrentThread.Sleep(pause);
            return Stopwatch.GetElapsedTime(begin);
        })];
        Assert.True(slept.Max() >= pause);
        Assert.True(slept.Min() < TimeSpan.FromMilliseconds(1));
    }
}
