using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>A guest goes back to the switchover: from a destination that says that it has dropped it, and from no other.</summary>
public sealed class RollbackTests : IDisposable
{
    private const ulong Size = 4 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TestGuest _leaving = new(GuestMemory.Create(Size));
    private readonly MigrationDestination _destination;
    private readonly Relay _relay;
    private readonly Task _receiving;
    private Action _stopped = () => { };
    private int _stops;

    public RollbackTests()
    {
        _destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0),
            layout => new StoppedGuest(new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId), () =>
            {
                _ = Interlocked.Increment(ref _stops);
                _stopped();
            }))
        {
            LinkTimeout = TimeSpan.FromSeconds(2),
        };
        _relay = new Relay(_destination.EndPoint);
        _receiving = Task.Run(() => _destination.Receive(_ => { }));
    }

    public void Dispose()
    {
        _relay.Dispose();
        _destination.Dispose();
        _leaving.Dispose();
        _ = _receiving.ContinueWith(static ended => ended.Exception, TaskScheduler.Default);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void An_answer_that_is_lost_with_its_link_is_heard_on_the_next(bool byResuming)
    {
        MigrationSource source = LoseAfterSwitchover();
        _stopped = _relay.Cut;
        _relay.IsRefusing = false;
        MigrationException failure = Assert.Throws<MigrationException>(() => source.RollBack(destinationIsFenced: false));
        Assert.True(failure.SwitchedOver, failure.Message);
        Assert.Equal(1, _stops);
        Assert.False(_leaving.IsRunning);
        _leaving.IsPaused = false;
        _stopped = () => { };
        if (byResuming)
        {
            MigrationException back = Assert.Throws<MigrationException>(() => source.Resume(_relay.EndPoint));
            Assert.False(back.SwitchedOver, back.Message);
        }
        else
        {
            source.RollBack(destinationIsFenced: false);
        }

        AssertIsBack(source);
        Assert.Equal(1, _stops);
    }

    [Fact]
    public void What_was_taken_out_of_the_destination_does_not_go_back()
    {
        MigrationSource source = LoseAfterSwitchover();
        GuestHalf theirs = _destination.Export();
        GuestHalf ours = source.Half;
        Assert.Equal((ours.Session, ours.Generation, ours.Layout.GuestId), (theirs.Session, theirs.Generation, theirs.Layout.GuestId));
        _relay.IsRefusing = false;
        MigrationException failure = Assert.Throws<MigrationException>(() => source.RollBack(destinationIsFenced: false));
        Assert.Contains("taken out of the destination as a file", failure.Message, StringComparison.Ordinal);
        Assert.Equal(MigrationPhase.Exported, source.Progress.Phase);
        Assert.False(_leaving.IsRunning);
        _ = Assert.Throws<InvalidOperationException>(() => source.RollBack(destinationIsFenced: true));

        // It can be written again.
        Assert.Equal(theirs.Session, _destination.Export().Session);
        Assert.Equal(ours.Session, source.Half.Session);
    }

    [Fact]
    public void Where_a_link_is_there_nothing_goes_back_and_nothing_is_taken_out()
    {
        MigrationSource source = Source();
        Task moving = BeginPaused(source);
        _ = Assert.Throws<InvalidOperationException>(() => source.RollBack(destinationIsFenced: true));
        _ = Assert.Throws<InvalidOperationException>(() => _destination.Export());
        Assert.True(moving.Wait(s_patience));
        _ = Assert.Throws<InvalidOperationException>(() => source.RollBack(destinationIsFenced: true));
        _ = Assert.Throws<InvalidOperationException>(() => source.Half);
        Assert.True(_receiving.Wait(s_patience));
        _ = Assert.Throws<InvalidOperationException>(() => _destination.Export());
        Assert.Equal(0, _stops);
    }

    [Fact]
    public void Who_would_go_on_with_it_while_it_goes_back_is_refused()
    {
        MigrationSource source = LoseAfterSwitchover();
        using var isResuming = new ManualResetEventSlim();
        Task? resuming = null;
        _stopped = () =>
        {
            resuming = Task.Run(() =>
            {
                isResuming.Set();
                source.Resume(_relay.EndPoint);
            });
            Assert.True(isResuming.Wait(s_patience));
            Thread.Sleep(200);
        };
        _relay.IsRefusing = false;
        _leaving.IsPaused = false;
        source.RollBack(destinationIsFenced: false);
        _ = Assert.Throws<InvalidOperationException>(() => resuming!.WaitAsync(s_patience).GetAwaiter().GetResult());
        AssertIsBack(source);
    }

    [Fact]
    public void A_vcpu_that_waits_for_a_page_gets_it_so_that_it_can_be_stopped()
    {
        MigrationSource source = LoseAfterSwitchover(isPaused: false);
        Assert.True(SpinWait.SpinUntil(IsWaited, s_patience), "The guest does not wait.");
        _relay.IsRefusing = false;
        source.RollBack(destinationIsFenced: false);
        AssertIsBack(source);
        Assert.Equal(1, _stops);
    }

    [Fact]
    public void A_guest_that_could_not_run_here_stays_as_it_is_kept()
    {
        MigrationSource source = LoseAfterSwitchover();
        _relay.IsRefusing = false;
        _leaving.WhyNotHere = "no room";
        MigrationException failure = Assert.Throws<MigrationException>(() => source.RollBack(destinationIsFenced: false));
        Assert.Contains("no room", failure.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("did not say that it has dropped it", failure.Message, StringComparison.Ordinal);
        failure = Assert.Throws<MigrationException>(() => source.Resume(_relay.EndPoint));
        Assert.True(failure.SwitchedOver, failure.Message);
        Assert.Contains("no room", failure.Message, StringComparison.Ordinal);
        Assert.Equal(MigrationPhase.Stalled, source.Progress.Phase);
        Assert.NotEmpty(source.Half.State.ToArray());
        _leaving.WhyNotHere = null;
        _leaving.IsPaused = false;
        MigrationException back = Assert.Throws<MigrationException>(() => source.Resume(_relay.EndPoint));
        Assert.False(back.SwitchedOver, back.Message);
        AssertIsBack(source);
    }

    private bool IsWaited()
    {
        PageStates states = _destination.Engine!.States;
        for (ulong page = 0; page < states.PageCount; page++)
        {
            if (states[page] == PageState.Requested)
            {
                return true;
            }
        }

        return false;
    }

    private void AssertIsBack(MigrationSource source)
    {
        Assert.Equal(MigrationPhase.RolledBack, source.Progress.Phase);
        ulong round = _leaving.Round;
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > round + 1, s_patience), "The guest does not go on.");
        Assert.Equal(0, _leaving.Wrong);
    }

    private MigrationSource Source() => new(_leaving, new MigrationOptions
    {
        Mode = MigrationMode.Postcopy,
        Connections = 1,
        LinkTimeout = TimeSpan.FromSeconds(2),
        ReconnectFor = TimeSpan.FromMilliseconds(100),
        MaxPostcopyBandwidth = 2 << 20,
    });

    /// <summary>Moves a guest, which stands still: one that waits for a page could not be stopped here.</summary>
    private Task BeginPaused(MigrationSource source) => Begin(source, isPaused: true);

    private Task Begin(MigrationSource source, bool isPaused)
    {
        _leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > 1, s_patience));
        if (isPaused)
        {
            _leaving.Pause();
            _leaving.IsPaused = true;
        }

        var moving = Task.Run(() => source.Run(_relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.PostCopy && _destination.Progress.Phase == MigrationPhase.PostCopy, s_patience));
        return moving;
    }

    private MigrationSource LoseAfterSwitchover(bool isPaused = true)
    {
        MigrationSource source = Source();
        Task moving = Begin(source, isPaused);
        _relay.IsRefusing = true;
        _relay.Cut();
        AggregateException lost = Assert.Throws<AggregateException>(() => moving.Wait(s_patience));
        Assert.True(Assert.IsType<MigrationException>(lost.InnerException).SwitchedOver);
        Assert.True(SpinWait.SpinUntil(() => _destination.Progress.Phase == MigrationPhase.Paused, s_patience));
        return source;
    }
}
