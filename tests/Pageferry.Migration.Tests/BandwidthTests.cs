using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Migrations that are held to a rate: they keep to it, and nobody waits for a rate where a migration is cancelled or its link is lost.</summary>
public sealed class BandwidthTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly TestGuest _leaving = new(GuestMemory.Create(16 << 20));
    private readonly MigrationDestination _destination;
    private readonly Task _receiving;
    private volatile TestGuest? _arrived;

    public BandwidthTests()
    {
        _destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId));
        _receiving = Task.Run(() => Record.Exception(() => _destination.Receive(guest => _arrived = (TestGuest)guest)));
        _leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > 2, s_patience));
    }

    public void Dispose()
    {
        _destination.Dispose();
        Assert.True(_receiving.Wait(s_patience));
        _leaving.Dispose();
        _arrived?.Dispose();
    }

    [Theory]
    [InlineData(MigrationMode.Precopy)]
    [InlineData(MigrationMode.Postcopy)]
    public void What_is_sent_keeps_to_the_rate(MigrationMode mode)
    {
        const long Rate = 8 << 20;
        _leaving.Pause();
        _leaving.IsPaused = true;
        var source = new MigrationSource(_leaving, new MigrationOptions { Mode = mode, MaxBandwidth = Rate, MaxPostcopyBandwidth = Rate, Connections = 4 });
        source.Run(_destination.EndPoint);
        MigrationProgress progress = source.Progress;
        TestContext.Current.TestOutputHelper?.WriteLine($"{progress.BytesSent} bytes in {progress.Total.TotalSeconds:F3} s");

        // A third of the pages are zeros. The batch of each connection that is last is not waited for.
        Assert.True(progress.BytesSent > 10 << 20);
        Assert.InRange(progress.Total.TotalSeconds, 0.9 * (progress.BytesSent - (4 * (128 << 10))) / Rate, 10);
    }

    [Fact]
    public void Nobody_waits_for_a_rate_to_cancel()
    {
        var source = new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Precopy, MaxBandwidth = MigrationOptions.LeastBandwidth, Connections = 16 });
        Task<MigrationException> moving = Task.Run(() => Assert.Throws<MigrationException>(() => source.Run(_destination.EndPoint)));
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.PreCopy, s_patience));
        Thread.Sleep(500);

        // 16 batches at this rate take half a minute.
        long began = Environment.TickCount64;
        Assert.True(source.Cancel());
        Assert.False(moving.WaitAsync(s_patience).GetAwaiter().GetResult().SwitchedOver);
        Assert.InRange(Environment.TickCount64 - began, 0, 10_000);
    }

    [Fact]
    public void Nobody_waits_for_a_rate_to_come_back()
    {
        _leaving.Pause();
        _leaving.IsPaused = true;
        using var relay = new Relay(_destination.EndPoint);
        var source = new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Postcopy, MaxPostcopyBandwidth = MigrationOptions.LeastBandwidth, Connections = 16 });
        Task<MigrationException> moving = Task.Run(() => Assert.Throws<MigrationException>(() => source.Run(relay.EndPoint)));
        Assert.True(SpinWait.SpinUntil(() => source.Progress.PagesBackground > 0, s_patience));
        Thread.Sleep(500);

        // 16 batches at this rate take half a minute.
        long began = Environment.TickCount64;
        relay.Cut();
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Reconnects == 1, s_patience));
        Assert.InRange(Environment.TickCount64 - began, 0, 10_000);

        relay.IsRefusing = true;
        relay.Cut();
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.Paused, s_patience));
        source.GiveUp();
        Assert.True(moving.WaitAsync(s_patience).GetAwaiter().GetResult().SwitchedOver);
    }

    [Theory]
    [InlineData(-1, 5000)]
    [InlineData(1, 5000)]
    [InlineData(MigrationOptions.LeastBandwidth - 1, 5000)]
    [InlineData(0, 0)]
    [InlineData(0, 99)]
    [InlineData(0, 3_600_001)]
    [InlineData(0, 365L * 24 * 3_600_000)]
    public void What_a_migration_can_not_keep_to_is_refused(long rate, long linkTimeoutMilliseconds)
    {
        var linkTimeout = TimeSpan.FromMilliseconds(linkTimeoutMilliseconds);
        _ = Assert.Throws<ArgumentException>(() => new MigrationSource(_leaving, new MigrationOptions { MaxBandwidth = rate, LinkTimeout = linkTimeout }));
        _ = Assert.Throws<ArgumentException>(() => new MigrationSource(_leaving, new MigrationOptions { MaxPostcopyBandwidth = rate, LinkTimeout = linkTimeout }));
        if (rate == 0)
        {
            _ = Assert.Throws<ArgumentException>(() => new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), _ => _leaving) { LinkTimeout = linkTimeout });
        }
    }

    [Fact]
    public void The_least_and_the_most_are_taken()
    {
        foreach (TimeSpan linkTimeout in (TimeSpan[])[MigrationOptions.LeastLinkTimeout, MigrationOptions.MostLinkTimeout])
        {
            _ = new MigrationSource(_leaving, new MigrationOptions { MaxBandwidth = MigrationOptions.LeastBandwidth, MaxPostcopyBandwidth = MigrationOptions.LeastBandwidth, LinkTimeout = linkTimeout });
        }
    }
}
