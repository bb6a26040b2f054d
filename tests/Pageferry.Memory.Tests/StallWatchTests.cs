using Microsoft.Extensions.Logging;

namespace Pageferry.Memory.Tests;

/// <summary>A fault that nobody answers is reported, once, and no longer when it is answered.</summary>
public sealed class StallWatchTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    [Fact]
    public void A_stall_is_reported_with_its_page_and_what_it_waits_for()
    {
        using GuestMemory memory = GuestMemory.Create(1 << 20);
        using var engine = new FaultEngine(memory);
        engine.Start(new Silence());
        var lines = new Lines();
        using var watch = new StallWatch(engine, TimeSpan.FromMilliseconds(200), () => "the far end", lines);
        Assert.Null(watch.Stall);
        var touching = new Thread(() => memory.ReadAsGuest(5 * Page.Size, new byte[1])) { IsBackground = true };
        touching.Start();
        Assert.True(SpinWait.SpinUntil(() => watch.Stall is not null, s_patience));
        WaitingFault stall = watch.Stall!.Value;
        Assert.Equal(5UL * Page.Size, stall.Gpa);
        Assert.Equal(FaultCause.Demand, stall.Cause);
        Assert.True(stall.Age >= TimeSpan.FromMilliseconds(200));
        Assert.True(SpinWait.SpinUntil(() => lines.All.Length > 0, s_patience));

        // It is said once, however long it takes.
        Thread.Sleep(500);
        string line = Assert.Single(lines.All);
        Assert.Contains("0x5000", line, StringComparison.Ordinal);
        Assert.Contains("was asked for", line, StringComparison.Ordinal);
        Assert.Contains("waits for the far end", line, StringComparison.Ordinal);

        using (PageLane lane = engine.CreateLane())
        {
            Assert.Equal(1UL, lane.Zero(5, 1));
        }

        Assert.True(touching.Join(s_patience));
        Assert.True(SpinWait.SpinUntil(() => engine.OldestFault is null, s_patience));
        Assert.Null(watch.Stall);
    }

    [Fact]
    public void A_fault_may_wait_for_longer_than_a_timer_can()
    {
        using GuestMemory memory = GuestMemory.Create(1 << 20);
        using var engine = new FaultEngine(memory);
        using var watch = new StallWatch(engine, TimeSpan.FromDays(365), () => null, new Lines());
        Assert.Null(watch.Stall);
    }

    private sealed class Silence : IPageSource
    {
        public void Request(ReadOnlySpan<ulong> pages)
        {
            // It never comes.
        }
    }

    private sealed class Lines : ILogger
    {
        private readonly Lock _lock = new();
        private readonly List<string> _lines = [];

        internal string[] All
        {
            get
            {
                lock (_lock)
                {
                    return [.. _lines];
                }
            }
        }

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            lock (_lock)
            {
                _lines.Add(formatter(state, exception));
            }
        }
    }
}
