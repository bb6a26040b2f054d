using System.Net;
using CsCheck;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>What a source has somebody keep of its guest, who outlives it, and what another process makes of that.</summary>
public sealed class SourceKeeperTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TestGuest _leaving = new(GuestMemory.Create(2 << 20));
    private readonly TestKeeper _keeper = new();
    private TestGuest? _arrived;

    public void Dispose()
    {
        _leaving.Dispose();
        _arrived?.Dispose();
    }

    [Fact]
    public void Each_step_is_kept_before_it_is_taken()
    {
        using MigrationDestination destination = Destination();
        Task receiving = Task.Run(() => destination.Receive(guest => _arrived = (TestGuest)guest));
        _keeper.Met = step => Assert.Equal(step is "drop", _arrived is not null);
        BeginGuest();
        new MigrationSource(_leaving, Options()).Run(destination.EndPoint);
        Assert.True(receiving.Wait(s_patience));
        Assert.Equal(["offer", "let go", "drop"], _keeper.Steps);
    }

    [Theory]
    [InlineData("offer")]
    [InlineData("let go")]
    public void A_step_that_is_not_known_to_be_kept_is_not_taken_and_the_guest_goes_on_when_nobody_can_serve_it(string failing)
    {
        using MigrationDestination destination = Destination();
        _ = Task.Run(() => destination.Receive(guest => _arrived = (TestGuest)guest));
        int burnt = 0;
        _keeper.Met = step =>
        {
            Assert.False(_leaving.IsRunning);

            // Nor is it known at once that nobody can.
            if (step == failing || (step == "burn" && ++burnt < 2))
            {
                throw new IOException("The holder does not answer.");
            }
        };
        BeginGuest();
        MigrationException failure = Assert.Throws<MigrationException>(() => new MigrationSource(_leaving, Options()).Run(destination.EndPoint));
        Assert.False(failure.SwitchedOver);
        Assert.Contains("The holder does not answer.", failure.Message, StringComparison.Ordinal);
        Assert.Equal(failing == "offer" ? ["offer"] : ["offer", "let go", "burn", "burn"], _keeper.Steps);
        ulong round = _leaving.Round;
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > round + 1, s_patience), "The guest does not go on.");
        Assert.Null(_arrived);
    }

    [Fact]
    public void Another_process_goes_on_with_what_was_kept()
    {
        using MigrationDestination destination = Destination();
        using var relay = new Relay(destination.EndPoint);
        Task receiving = Task.Run(() => destination.Receive(guest => _arrived = (TestGuest)guest));
        BeginGuest();
        var source = new MigrationSource(_leaving, Options() with { MaxPostcopyBandwidth = 1 << 20, ReconnectFor = TimeSpan.FromMilliseconds(100) });
        Task moving = Task.Run(() => source.Run(relay.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => source.Progress.Phase == MigrationPhase.PostCopy, s_patience));
        relay.IsRefusing = true;
        relay.Cut();
        _ = Assert.Throws<AggregateException>(() => moving.Wait(s_patience));

        // As far as the destination can tell, that was the source's end.
        relay.IsRefusing = false;
        var record = SourceRecord.Parse(_keeper.Record!.Serialize(), _keeper.Record.State);
        var other = new TestKeeper();
        MigrationSource served = MigrationSource.TakeOver(_leaving, record, Options() with { Keeper = other }, relay.EndPoint);
        served.Resume(relay.EndPoint);
        Assert.Equal(MigrationPhase.Completed, served.Progress.Phase);
        Assert.True(receiving.Wait(s_patience));
        Assert.Equal(["drop"], other.Steps);
        ulong round = _arrived!.Round;
        Assert.True(SpinWait.SpinUntil(() => _arrived.Round > round + 2, s_patience), "The guest does not go on.");
        Assert.Equal(0, _arrived.Wrong);
        Assert.False(_leaving.IsRunning);
    }

    [Fact]
    public void It_goes_back_to_the_switchover_when_nobody_else_can_serve_it()
    {
        _leaving.Pause();
        var layout = new MigrationLayout(_leaving.Id, _leaving.MachineKind, GuestBacking.Memfd, _leaving.Memory.Regions);
        var record = SourceRecord.Of(layout, SessionId.Create(), 1, isPaused: false, _leaving.SaveState());
        using var nobody = new System.Net.Sockets.Socket(System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
        nobody.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var endpoint = (IPEndPoint)nobody.LocalEndPoint!;
        MigrationSource served = MigrationSource.TakeOver(_leaving, record, Options() with { ReconnectFor = TimeSpan.Zero }, endpoint);
        Assert.True(Assert.Throws<MigrationException>(() => served.Resume(endpoint)).SwitchedOver);
        _ = Assert.Throws<MigrationException>(() => served.RollBack(destinationIsFenced: false));
        Assert.Empty(_keeper.Steps);
        _keeper.Met = _ => Assert.False(_leaving.IsRunning);
        served.RollBack(destinationIsFenced: true);
        Assert.Equal(["burn"], _keeper.Steps);
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > 0, s_patience), "The guest does not go on.");
    }

    [Fact]
    public void A_record_comes_back_as_it_was_and_a_damaged_one_is_refused()
    {
        var layout = new MigrationLayout(Guid.NewGuid(), "kind", GuestBacking.Memfd2M, [new GuestRegion(0, 4 << 20), new GuestRegion(1UL << 32, 2 << 20)], Validate: true);
        var record = SourceRecord.Of(layout, SessionId.Create(), 7, isPaused: true, new byte[] { 1, 2, 3 });
        byte[] bytes = record.Serialize();
        var read = SourceRecord.Parse(bytes, record.State);
        Assert.Equal(layout.Regions, read.Layout.Regions);
        Assert.Equal(layout with { Regions = read.Layout.Regions }, read.Layout);
        Assert.Equal((record.Session, 7U, true), (read.Session, read.Generation, read.IsPaused));
        _ = Assert.Throws<InvalidDataException>(() => SourceRecord.Parse(bytes, new byte[2]));
        byte[] newer = [.. bytes];
        newer[8]++;
        Assert.Contains("version 2", Assert.Throws<InvalidDataException>(() => SourceRecord.Parse(newer, record.State)).Message, StringComparison.Ordinal);
        Gen.Select(Gen.Int[0, bytes.Length - 1], Gen.Byte, Gen.Int[0, bytes.Length]).Sample((at, value, length) =>
        {
            byte[] damaged = bytes[..length];
            if (at < length)
            {
                damaged[at] = value;
            }

            try
            {
                _ = SourceRecord.Parse(damaged, record.State);
            }
            catch (InvalidDataException)
            {
                // Refused by name.
            }
        });
    }

    private MigrationOptions Options() => new() { Mode = MigrationMode.Postcopy, Connections = 1, Keeper = _keeper };

    private MigrationDestination Destination() => new(
        new IPEndPoint(IPAddress.Loopback, 0),
        layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId));

    private void BeginGuest()
    {
        _leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > 1, s_patience));
    }

    private sealed class TestKeeper : ISourceKeeper
    {
        internal List<string> Steps { get; } = [];

        internal Action<string>? Met { get; set; }

        internal SourceRecord? Record { get; private set; }

        public void Offer(SourceRecord record)
        {
            Record = record;
            Meet("offer");
        }

        public void LetGo() => Meet("let go");

        public void Burn() => Meet("burn");

        public void Drop() => Meet("drop");

        private void Meet(string step)
        {
            Steps.Add(step);
            Met?.Invoke(step);
        }
    }
}
