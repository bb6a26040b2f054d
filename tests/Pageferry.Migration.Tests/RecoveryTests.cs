using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>The link is lost after the switchover, in any way and at any byte: both sides find each other again and the guest reads nothing wrong.</summary>
public sealed class RecoveryTests : IDisposable
{
    private const ulong Size = 4 << 20;

    /// <summary>What a source sends before switchover over one background connection: see <see cref="LinkFailureTests"/>.</summary>
    private const int RequestBytes = (3 * 40) + (8 + 52 + 4) + (8 + 32 + 4);

    private const int StartBytes = 8;

    /// <summary>What a destination sends before it lets the guest run: three welcomes of 40 bytes, Armed, StateLoaded.</summary>
    private const int AnswerBytes = (3 * 40) + 8 + 8;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private TestGuest? _leaving;
    private MigrationDestination? _destination;
    private Relay? _relay;
    private Task? _receiving;
    private volatile TestGuest? _arrived;

    public void Dispose() => End();

    [Fact]
    public void A_cut_at_any_byte_of_the_switchover_is_recovered_from()
    {
        for (int bytes = 0; bytes < StartBytes; bytes++)
        {
            AssertRecovers(relay => relay.CutAfter(toDestination: RequestBytes + bytes), $"cut after {bytes} bytes of Start");
        }
    }

    [Fact]
    public void A_cut_at_any_byte_of_the_first_pages_is_recovered_from()
    {
        for (int bytes = StartBytes; bytes < 160; bytes += 3)
        {
            AssertRecovers(relay => relay.CutAfter(toDestination: RequestBytes + bytes), $"cut after {bytes} bytes");
        }
    }

    [Fact]
    public void A_cut_anywhere_among_the_pages_is_recovered_from()
    {
        var random = new Random(4711);
        for (int i = 0; i < 20; i++)
        {
            int bytes = random.Next((int)Size / 2);
            AssertRecovers(relay => relay.CutAfter(toDestination: RequestBytes + bytes), $"cut after {bytes} bytes");
        }
    }

    [Fact]
    public void A_cut_at_any_byte_of_the_first_answers_is_recovered_from()
    {
        for (int bytes = 0; bytes < 32; bytes++)
        {
            AssertRecovers(relay => relay.CutAfter(toSource: AnswerBytes + bytes), $"cut after {bytes} bytes of answers");
        }
    }

    [Fact]
    public void No_damaged_byte_of_what_is_said_of_the_guest_is_believed()
    {
        // The payloads of Layout and Switchover, with their checks.
        const int LayoutAt = (3 * 40) + 8;
        const int SwitchoverAt = LayoutAt + 52 + 4 + 8;
        Begin();
        for (int at = LayoutAt; at < SwitchoverAt + 32 + 4; at += at == SwitchoverAt - 9 ? 9 : 1)
        {
            using var relay = new Relay(_destination!.EndPoint);
            relay.DamageAfter(at);
            MigrationException failure = Assert.Throws<MigrationException>(() => Source().Run(relay.EndPoint));
            Assert.False(failure.SwitchedOver, $"byte {at}");
        }

        AssertWhole(Move(), "after much damage");
    }

    [Fact]
    public void Many_cuts_of_one_migration_are_recovered_from()
    {
        Begin();
        _relay!.CutAfter(toDestination: RequestBytes + StartBytes + 200_000, againAfter: 200_000);
        AssertWhole(Move(), "many cuts");
        Assert.True(_relay.Cuts > 3, $"Only {_relay.Cuts} cuts.");
        Assert.InRange(_destination!.Progress.Reconnects, 1, _relay.Cuts);
    }

    [Fact]
    public void A_greeting_that_is_held_up_is_not_taken_for_the_delay_of_the_link()
    {
        Begin();
        _relay!.HoldAfter(40, TimeSpan.FromMilliseconds(500));
        using var link = new OutgoingConnections(new MigrationOptions(), new MigrationCounters());
        link.Open(_relay.EndPoint);
        Assert.InRange(link.RoundTrip, TimeSpan.FromTicks(1), TimeSpan.FromMilliseconds(250));
    }

    [Fact]
    public void A_link_that_is_silent_counts_as_lost()
    {
        Begin(linkTimeout: TimeSpan.FromMilliseconds(400));
        _relay!.CutAfter(toDestination: RequestBytes + StartBytes + 300_000);
        MigrationSource source = Source();
        Task moving = Task.Run(() => source.Run(_relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => _relay.Cuts == 1, s_patience));
        _relay.IsFlowing = false;

        // Both sides see it, neither gets through, and each says what it waits for.
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.Paused && source.Progress.WaitedFor > TimeSpan.FromSeconds(1), s_patience));
        Assert.True(SpinWait.SpinUntil(() => _destination!.Progress.Phase == MigrationPhase.Paused, s_patience));
        Assert.Contains("the destination", source.Progress.WaitsFor, StringComparison.Ordinal);
        Assert.Contains("the source", _destination!.Progress.WaitsFor, StringComparison.Ordinal);
        _relay.IsFlowing = true;
        AssertWhole(moving, "silence");
        Assert.Null(source.Progress.WaitsFor);
    }

    [Fact]
    public void An_idle_link_that_is_alive_is_not_lost()
    {
        Begin(linkTimeout: TimeSpan.FromMilliseconds(400), hesitation: TimeSpan.FromSeconds(2));
        MigrationSource source = Source();
        Task moving = Task.Run(() => source.Run(_relay!.EndPoint));
        AssertWhole(moving, "idle");
        Assert.Equal(0, source.Progress.Reconnects);
        Assert.Equal(0, _destination!.Progress.Reconnects);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void How_long_each_side_waits_for_the_other_is_its_own_affair(bool isSourceTheShorter)
    {
        TimeSpan shorter = TimeSpan.FromMilliseconds(250);
        Begin(linkTimeout: isSourceTheShorter ? MigrationOptions.MostLinkTimeout : shorter, hesitation: TimeSpan.FromSeconds(2));
        _linkTimeout = isSourceTheShorter ? shorter : MigrationOptions.MostLinkTimeout;
        MigrationSource source = Source();
        AssertWhole(Task.Run(() => source.Run(_relay!.EndPoint)), "idle");
        Assert.Equal(0, source.Progress.Reconnects);
    }

    [Fact]
    public void Who_gave_up_can_be_told_to_go_on()
    {
        Begin(reconnectFor: TimeSpan.FromMilliseconds(200));
        _relay!.CutAfter(toDestination: RequestBytes + StartBytes + 300_000);
        _relay.IsRefusing = false;
        MigrationSource source = Source();
        Task moving = Task.Run(() => source.Run(_relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => _relay.Cuts == 1, s_patience));
        _relay.IsRefusing = true;
        _relay.Cut();
        Assert.True(Assert.Throws<MigrationException>(() => moving.WaitAsync(s_patience).GetAwaiter().GetResult()).SwitchedOver);
        Assert.True(Assert.Throws<MigrationException>(() => _receiving!.WaitAsync(s_patience).GetAwaiter().GetResult()).SwitchedOver);
        Assert.Equal(MigrationPhase.Stalled, source.Progress.Phase);
        Assert.Equal(MigrationPhase.Stalled, _destination!.Progress.Phase);

        _receiving = Task.Run(() => _destination.Receive(_ => Assert.Fail("It has arrived already.")));
        AssertWhole(Task.Run(() => source.Resume(_destination.EndPoint)), "resumed");
        Assert.Equal(MigrationPhase.Completed, source.Progress.Phase);
    }

    [Fact]
    public void A_source_that_looks_for_its_destination_can_be_told_where_it_is_or_to_give_up()
    {
        Begin();
        _relay!.CutAfter(toDestination: RequestBytes + StartBytes + 300_000);
        MigrationSource source = Source();
        Assert.Throws<InvalidOperationException>(() => source.Resume(_relay.EndPoint));
        Task moving = Task.Run(() => source.Run(_relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => _relay.Cuts == 1, s_patience));
        _relay.IsRefusing = true;
        _relay.Cut();
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.Paused, s_patience));
        source.GiveUp();
        Assert.Throws<MigrationException>(() => moving.WaitAsync(s_patience).GetAwaiter().GetResult());
        moving = Task.Run(() => source.Resume(_relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.Paused, s_patience));
        source.Resume(_destination!.EndPoint);
        AssertWhole(moving, "elsewhere");
    }

    [Fact]
    public void Who_was_to_give_up_and_had_found_the_destination_looks_for_it_again_when_it_is_lost()
    {
        Begin();
        _relay!.HoldAfter(RequestBytes + StartBytes + 500_000, TimeSpan.FromSeconds(2));
        MigrationSource source = Source();
        Task moving = Task.Run(() => source.Run(_relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.PostCopy, s_patience));
        source.GiveUp();
        Assert.Throws<InvalidOperationException>(() => source.RollBack(destinationIsFenced: true));
        _relay.Cut();
        AssertWhole(moving, "taken back");
        Assert.Equal(1, source.Progress.Reconnects);
    }

    [Fact]
    public void A_guest_whose_source_is_gone_is_not_replaced_by_another()
    {
        Begin();
        _relay!.CutAfter(toDestination: RequestBytes + StartBytes + 300_000);
        Task moving = Move();
        Assert.True(SpinWait.SpinUntil(() => _relay.Cuts == 1, s_patience));
        _relay.IsRefusing = true;
        _relay.Cut();
        Assert.True(SpinWait.SpinUntil(() => _destination!.Progress.Phase == MigrationPhase.Paused, s_patience));
        using (var other = new TestGuest(GuestMemory.Create(Size)))
        {
            other.Resume();
            var source = new MigrationSource(other, new MigrationOptions { Mode = MigrationMode.Postcopy });
            MigrationException refusal = Assert.Throws<MigrationException>(() => source.Run(_destination!.EndPoint));
            Assert.Contains("holds a guest whose source may come back", refusal.Message, StringComparison.Ordinal);
            Assert.True(other.IsRunning);
        }

        _relay.IsRefusing = false;
        AssertWhole(moving, "another guest");
    }

    [Fact]
    public void A_session_that_is_not_known_is_not_come_back_to()
    {
        Begin();
        using var link = new OutgoingConnections(new MigrationOptions(), new MigrationCounters());
        ProtocolException refusal = Assert.Throws<ProtocolException>(() => link.Open(_destination!.EndPoint, SessionId.Create(), s_patience, s_patience));
        Assert.Contains("not known here", refusal.Message, StringComparison.Ordinal);
        AssertWhole(Move(), "a stranger");
    }

    [Fact]
    public void A_destination_that_missed_the_end_of_its_old_link_takes_the_new_one()
    {
        Begin(linkTimeout: TimeSpan.FromSeconds(1));
        _relay!.CutAfter(toDestination: RequestBytes + StartBytes + 300_000);
        MigrationSource source = Source();

        // Seen from the destination the old connections are alive: only the source has lost them.
        Task moving = Task.Run(() => source.Run(_relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => _relay.Cuts == 1, s_patience));
        _relay.IsFlowing = false;
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.Paused, s_patience));
        source.Resume(_destination!.EndPoint);
        AssertWhole(moving, "a new link beside the old one");
    }

    [Theory]
    [InlineData(GuestBacking.Anonymous)]
    [InlineData(GuestBacking.Memfd)]
    public void What_the_guest_wrote_before_the_cut_is_not_overwritten(GuestBacking backing)
    {
        for (int i = 0; i < 5; i++)
        {
            Begin(backing: backing);
            _relay!.CutAfter(toDestination: RequestBytes + StartBytes + 500_000 + (i * 300_000));
            Task moving = Move(validate: true);
            AssertWhole(moving, $"cut {i}");
        }
    }

    private void AssertRecovers(Action<Relay> cut, string what)
    {
        Begin();
        cut(_relay!);
        AssertWhole(Move(), what);
        Assert.True(_relay!.Cuts > 0, $"{what}: there was no cut.");
    }

    private void Begin(TimeSpan? linkTimeout = null, TimeSpan? reconnectFor = null, TimeSpan hesitation = default, GuestBacking backing = GuestBacking.Memfd)
    {
        End();
        _linkTimeout = linkTimeout ?? MigrationOptions.DefaultLinkTimeout;
        _reconnectFor = reconnectFor ?? Timeout.InfiniteTimeSpan;
        _leaving = new TestGuest(GuestMemory.Create(Size));
        _arrived = null;
        _destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions, backing), layout.GuestId) { Hesitation = hesitation })
        {
            LinkTimeout = _linkTimeout,
            ReconnectFor = _reconnectFor,
            WholePatience = TimeSpan.FromSeconds(1),
        };
        _receiving = Task.Run(() => _destination.Receive(guest => _arrived = (TestGuest)guest));
        _relay = new Relay(_destination.EndPoint);
        _leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > 1, s_patience));
    }

    private void End()
    {
        _relay?.Dispose();
        _destination?.Dispose();
        _leaving?.Dispose();
        if (_destination?.Engine is { UnknownPages: 0 })
        {
            // One that stalls can't be stopped.
            _arrived?.Dispose();
        }
    }

    private TimeSpan _linkTimeout;
    private TimeSpan _reconnectFor;

    private MigrationSource Source(bool validate = false) => new(_leaving!, new MigrationOptions
    {
        Mode = MigrationMode.Postcopy,
        Connections = 1,
        LinkTimeout = _linkTimeout,
        ReconnectFor = _reconnectFor,
        Validate = validate,
    });

    private Task Move(bool validate = false)
    {
        MigrationSource source = Source(validate);
        EndPoint endPoint = _relay!.EndPoint;
        return Task.Run(() => source.Run(endPoint));
    }

    private void AssertWhole(Task moving, string what)
    {
        Assert.True(moving.Wait(s_patience), $"{what}: the source waits on.");
        Assert.True(_receiving!.Wait(s_patience), $"{what}: the destination waits on.");
        Assert.False(_leaving!.IsRunning);
        Assert.Equal(0, _destination!.Engine!.UnknownPages);
        TestGuest guest = _arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 1, s_patience), $"{what}: the guest stalls.");
        Assert.True(guest.Wrong == 0, $"{what}: {guest.Wrong} words are wrong.");
    }
}
