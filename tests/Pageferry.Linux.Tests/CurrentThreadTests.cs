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
