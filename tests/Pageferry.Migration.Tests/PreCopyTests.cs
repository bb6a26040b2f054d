using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Memory that goes before the guest: what goes wrong on the way, who stops it, and who is stopped.</summary>
public sealed class PreCopyTests : IDisposable
{
    private const ulong Size = 32 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TestGuest _leaving = new(GuestMemory.Create(Size));
    private readonly MigrationDestination _destination;
    private readonly Task _receiving;
    private volatile TestGuest? _arrived;
    private TimeSpan _hesitation;

    public PreCopyTests()
    {
        _destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId) { Hesitation = _hesitation });
        _receiving = Task.Run(() => _destination.Receive(guest => _arrived = (TestGuest)guest));
        _leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > 1, s_patience));
    }

    public void Dispose()
    {
        _destination.Dispose();
        _arrived?.Dispose();
        _leaving.Dispose();
    }

    [Theory]
    [InlineData(MigrationMode.Precopy, MigrationCompression.None)]
    [InlineData(MigrationMode.Precopy, MigrationCompression.Lz4)]
    [InlineData(MigrationMode.Precopy, MigrationCompression.Zstd)]
    [InlineData(MigrationMode.Postcopy, MigrationCompression.None)]
    [InlineData(MigrationMode.Postcopy, MigrationCompression.Lz4)]
    [InlineData(MigrationMode.Postcopy, MigrationCompression.Zstd)]
    [InlineData(MigrationMode.Auto, MigrationCompression.None)]
    [InlineData(MigrationMode.Auto, MigrationCompression.Zstd)]
    public void What_arrives_damaged_is_asked_for_again_and_never_shown(MigrationMode mode, MigrationCompression compression)
    {
        using var proxy = new DamagingProxy(_destination.EndPoint, oneIn: 5);
        MigrationSource source = Move(proxy.EndPoint, new MigrationOptions
        {
            Mode = mode,
            Compression = compression,
            DowntimeLimit = mode == MigrationMode.Auto ? TimeSpan.FromMilliseconds(1) : TimeSpan.FromSeconds(10),
            Validate = true,
        });
        Assert.True(proxy.Damaged > 0);
        Assert.True(source.Progress.PagesDamaged > 0);
        Assert.True(_destination.Progress.PagesDamaged >= source.Progress.PagesDamaged);
        AssertRunsThere();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(16)]
    public void Any_number_of_connections_shares_the_pages(int connections)
    {
        MigrationSource source = Move(_destination.EndPoint, new MigrationOptions { Mode = MigrationMode.Precopy, Connections = connections, DowntimeLimit = s_patience, Validate = true });
        Assert.Equal(0, source.Progress.PagesDemand + source.Progress.PagesBackground);
        AssertRunsThere();
    }

    [Fact]
    public void A_furious_guest_goes_by_post_copy_and_only_what_it_wrote_follows()
    {
        MigrationSource source = Move(_destination.EndPoint, new MigrationOptions { DowntimeLimit = TimeSpan.FromMilliseconds(1), MaxBandwidth = 100 << 20, Validate = true });
        Assert.Contains(source.Decisions, decision => decision.Contains("does not converge", StringComparison.Ordinal));
        MigrationProgress progress = source.Progress;
        Assert.InRange(progress.PagesDemand + progress.PagesBackground, 1, (long)_leaving.Memory.PageCount * 2 / 3 * 11 / 10);
        AssertRunsThere();
    }

    [Fact]
    public void A_guest_that_does_not_write_stops_once_and_nothing_follows_it()
    {
        _leaving.Pause();
        MigrationSource source = Move(_destination.EndPoint, new MigrationOptions { Validate = true });

        // One while it could have run, and one, of nothing, when it had been stopped.
        Assert.Equal(2, source.Progress.Round);
        Assert.Equal(0, source.Progress.PagesDemand + source.Progress.PagesBackground);
        AssertRunsThere();
    }

    [Fact]
    public void A_guest_that_hesitates_when_all_its_memory_is_there_is_waited_for()
    {
        _hesitation = TimeSpan.FromMilliseconds(200);
        _leaving.Pause();
        MigrationSource source = Move(_destination.EndPoint, new MigrationOptions());
        Assert.InRange(source.Progress.Downtime, _hesitation, s_patience);
        AssertRunsThere();
    }

    [Fact]
    public void A_guest_that_somebody_stopped_arrives_as_it_stood()
    {
        _leaving.Pause();
        _leaving.IsPaused = true;
        int pauses = _leaving.Pauses;
        MigrationSource source = Move(_destination.EndPoint, new MigrationOptions());
        Assert.Equal(MigrationPhase.Completed, source.Progress.Phase);
        Assert.False(_arrived!.IsRunning);
        Assert.Equal(_leaving.Round, _arrived.Round);
        Assert.InRange(_leaving.Pauses, pauses, pauses + 1);
        Assert.False(_leaving.IsRunning);
        _arrived.Resume();
        AssertRunsThere();
    }

    [Fact]
    public void A_throttle_is_taken_off_when_the_migration_ends()
    {
        // So slow a link that the guest always writes more than a round sends.
        var source = new MigrationSource(_leaving, new MigrationOptions
        {
            Mode = MigrationMode.Precopy,
            DowntimeLimit = TimeSpan.FromTicks(1),
            AutoConverge = true,
            MaxBandwidth = 50 << 20,
        });
        Task<bool> cancelling = Task.Run(() => SpinWait.SpinUntil(() => _leaving.ThrottledTo is >= 20 and <= 99, s_patience) & source.Cancel());
        MigrationException failure = Assert.Throws<MigrationException>(() => source.Run(_destination.EndPoint));
        Assert.True(cancelling.GetAwaiter().GetResult());
        Assert.Contains("cancelled", failure.Message, StringComparison.Ordinal);
        Assert.False(failure.SwitchedOver);
        Assert.Equal(0, _leaving.ThrottledTo);
        AssertRunsHere();
    }

    [Fact]
    public void A_timeout_leaves_the_guest_here_if_nothing_else_was_asked_for()
    {
        var source = new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Precopy, DowntimeLimit = TimeSpan.FromTicks(1), Timeout = TimeSpan.FromMilliseconds(500) });
        MigrationException failure = Assert.Throws<MigrationException>(() => source.Run(_destination.EndPoint));
        Assert.Contains("within 0.5 s", failure.Message, StringComparison.Ordinal);
        Assert.False(failure.SwitchedOver);
        AssertRunsHere();
    }

    [Theory]
    [InlineData(MigrationTimeoutAction.Ignore)]
    [InlineData(MigrationTimeoutAction.Postcopy)]
    public void A_timeout_may_move_the_guest_all_the_same(MigrationTimeoutAction action)
    {
        MigrationSource source = Move(_destination.EndPoint, new MigrationOptions
        {
            Mode = MigrationMode.Precopy,
            DowntimeLimit = TimeSpan.FromTicks(1),
            Timeout = TimeSpan.FromMilliseconds(500),
            OnTimeout = action,
            Validate = true,
        });
        Assert.Contains("timeout is over", source.Decisions[^1], StringComparison.Ordinal);
        Assert.Equal(action == MigrationTimeoutAction.Postcopy, source.Progress.PagesDemand + source.Progress.PagesBackground > 0);
        AssertRunsThere();
    }

    [Fact]
    public void A_migration_cancelled_at_any_moment_leaves_the_guest_here_or_there()
    {
        var random = new Random(20261124);
        for (int i = 0; i < 40 && _arrived is null; i++)
        {
            // Long enough for most moments, and few in which the guest has gone.
            var source = new MigrationSource(_leaving, new MigrationOptions { DowntimeLimit = TimeSpan.FromMilliseconds(5), Mode = MigrationMode.Precopy, Connections = 1 + (i % 3) });
            MigrationException? failure = null;
            var moving = new Thread(() => failure = Record.Exception(() => source.Run(_destination.EndPoint)) as MigrationException);
            moving.Start();
            Thread.Sleep(random.Next(120));
            bool isCancelled = source.Cancel();
            Assert.True(moving.Join(s_patience));
            Assert.Equal(isCancelled, failure is { SwitchedOver: false });
            if (isCancelled)
            {
                Assert.Equal(MigrationPhase.Cancelled, source.Progress.Phase);
                AssertRunsHere();
            }
        }

        if (_arrived is null)
        {
            _ = Move(_destination.EndPoint, new MigrationOptions { Validate = true });
        }

        AssertRunsThere();
    }

    private MigrationSource Move(EndPoint to, MigrationOptions options)
    {
        var source = new MigrationSource(_leaving, options);
        source.Run(to);
        Assert.True(_receiving.Wait(s_patience));
        foreach (string decision in source.Decisions)
        {
            TestContext.Current.TestOutputHelper?.WriteLine(decision);
        }

        return source;
    }

    private void AssertRunsHere()
    {
        ulong round = _leaving.Round;
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > round, s_patience), "The guest does not run any more.");
        Assert.Equal(0, _leaving.Wrong);
    }

    private void AssertRunsThere()
    {
        ulong round = _arrived!.Round;
        Assert.True(SpinWait.SpinUntil(() => _arrived.Round > round + 2, s_patience), "The guest does not run there.");
        Assert.Equal(0, _leaving.Wrong + _arrived.Wrong);
        Assert.False(_leaving.IsRunning);
    }
}
