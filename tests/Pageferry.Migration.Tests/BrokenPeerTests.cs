using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Peers that hang, lie or go at the worst moment: whoever deals with them comes to an end.</summary>
public sealed class BrokenPeerTests : IDisposable
{
    private const ulong Size = 8 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly byte[] _frame = new byte[ZeroRun.FrameBytes];
    private readonly TestGuest _leaving = new(GuestMemory.Create(Size));

    public BrokenPeerTests() => _leaving.Resume();

    public void Dispose() => _leaving.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_request_that_breaks_off_ends_the_source(bool isCut)
    {
        using var destination = new ScriptedDestination();
        Task<MigrationException> moving = Move(destination.EndPoint);
        destination.Accept();
        destination.TakeOver();

        // From the header on, the source holds the background back for what is asked for.
        var request = new byte[PeerConnection.HeaderBytes + sizeof(ulong) + PeerConnection.CheckBytes];
        PeerConnection.WriteHeader(request, MessageType.PageRequest, sizeof(ulong) + PeerConnection.CheckBytes);
        Span<byte> payload = request.AsSpan(PeerConnection.HeaderBytes, sizeof(ulong));
        BinaryPrimitives.WriteUInt64LittleEndian(payload, ulong.MaxValue);
        PeerConnection.WriteCheck(request.AsSpan(PeerConnection.HeaderBytes + sizeof(ulong)), payload);
        destination.Demand.SendFrame(request.AsSpan(0, PeerConnection.HeaderBytes));
        Thread.Sleep(200);
        if (isCut)
        {
            destination.Demand.Dispose();
        }
        else
        {
            destination.Demand.SendFrame(request.AsSpan(PeerConnection.HeaderBytes));
        }

        Assert.True(moving.Wait(s_patience), "The source goes on with a destination that it has parted from.");
        Assert.True(moving.Result.SwitchedOver);
    }

    [Fact]
    public void A_source_that_has_let_go_parts_without_a_word()
    {
        using var destination = new ScriptedDestination();
        var source = new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Postcopy, LinkTimeout = TimeSpan.FromSeconds(1) });
        Task moving = Task.Run(() => source.Run(destination.EndPoint));
        destination.Accept();
        destination.TakeOver();
        destination.LoseAndAcceptAgain();

        // It waits for what was found, in vain. Did it say that it parts, a destination that has not been told to start would drop the guest.
        destination.Control.Patience = s_patience;
        Assert.Throws<EndOfStreamException>(() => destination.Control.ReceiveHeader());
        source.GiveUp();
        Assert.True(Assert.Throws<MigrationException>(() => moving.WaitAsync(s_patience).GetAwaiter().GetResult()).SwitchedOver);
    }

    [Fact]
    public void A_source_whose_destination_is_gone_does_not_ask_for_another()
    {
        var destination = new ScriptedDestination();
        var source = new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Postcopy, Connections = 1 });
        Task<MigrationException> moving = Task.Run(() => Assert.Throws<MigrationException>(() => source.Run(destination.EndPoint)));
        destination.Accept();
        destination.TakeOver();
        destination.Dispose();
        Assert.True(SpinWait.SpinUntil(() => source.Progress.WaitsFor?.Contains("Nobody listens there any more (ECONNREFUSED).", StringComparison.Ordinal) == true, s_patience), source.Progress.WaitsFor);
        AssertTellsWhatToDo(source.Progress.WaitsFor!);
        source.GiveUp();
        AssertTellsWhatToDo(moving.WaitAsync(s_patience).GetAwaiter().GetResult().Message);
    }

    [Theory]
    [InlineData("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")]
    [InlineData("SSH-2.0-OpenSSH_10.0\r\n")]
    [InlineData("\u0002\0\0\0\u0020\0\0\0 a welcome of somebody else's...")]
    public void A_server_of_another_kind_is_told_from_a_destination(string greeting)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        Task<MigrationException> moving = Move(listener.LocalEndpoint);
        using Socket server = listener.AcceptSocket();
        _ = server.Send(System.Text.Encoding.ASCII.GetBytes(greeting));
        Assert.Contains("failed: The peer does not speak Pageferry's protocol.", moving.WaitAsync(s_patience).GetAwaiter().GetResult().Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_destination_hears_that_its_source_was_cancelled()
    {
        var log = new LogLines();
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)), log);
        _ = Task.Run(() => Record.Exception(() => destination.Receive(_ => { })));
        for (int i = 0; i < 5; i++)
        {
            var source = new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Precopy, DowntimeLimit = TimeSpan.FromTicks(1), Connections = 4 });
            Task moving = Task.Run(() => Record.Exception(() => source.Run(destination.EndPoint)));
            Assert.True(SpinWait.SpinUntil(() => source.Progress.Round > 1, s_patience));
            Assert.True(source.Cancel());
            Assert.True(moving.Wait(s_patience));
            Assert.True(SpinWait.SpinUntil(() => log.Lines.Count == i + 1, s_patience));
        }

        Assert.All(log.Lines, line => Assert.Contains("The peer parted: It was cancelled.", line, StringComparison.Ordinal));
    }

    [Fact]
    public void A_guest_that_is_whole_before_it_is_known_to_run_arrives()
    {
        _leaving.Pause();
        LateGuest? arrived = null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0),
            layout => new LateGuest(new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId), TimeSpan.FromMilliseconds(300)));
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (LateGuest)guest));
        var source = new MigrationSource(_leaving);
        source.Run(destination.EndPoint);
        Assert.True(receiving.Wait(s_patience));
        Assert.Equal(MigrationPhase.Completed, source.Progress.Phase);
        Assert.True(source.Progress.Downtime >= TimeSpan.FromMilliseconds(290), $"{source.Progress.Downtime}");
        arrived!.Dispose();
    }

    [Fact]
    public void Nobody_who_answers_is_not_waited_for_long()
    {
        // The queue of who wants to connect is full: nobody is let in, and nobody is turned away.
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(0);
        using var queued = new TcpClient();
        queued.Connect((IPEndPoint)listener.LocalEndPoint!);
        long began = Environment.TickCount64;
        MigrationException failure = Move(listener.LocalEndPoint!).WaitAsync(s_patience).GetAwaiter().GetResult();
        Assert.Contains("did not answer in time", failure.Message, StringComparison.Ordinal);
        Assert.InRange(Environment.TickCount64 - began, 8_000, 15_000);
        Assert.True(_leaving.IsRunning);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_source_of_which_nothing_comes_any_more_is_turned_away(bool saysSwitchover)
    {
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)))
        {
            LongestSilence = TimeSpan.FromSeconds(1),
        };
        Task receiving = Task.Run(() => destination.Receive(_ => { }));
        using var session = new OutgoingConnections(new MigrationOptions { Connections = 2 }, new MigrationCounters());
        session.Open(destination.EndPoint);
        session.Send(MessageType.Layout, new MigrationLayout(Guid.NewGuid(), "test", GuestBacking.Memfd, _leaving.Memory.Regions).Serialize());
        _ = session.Control.Receive(MessageType.Armed, 0);

        // Longer than that it says something all the time, if only on one connection.
        for (int i = 0; i < 15; i++)
        {
            new ZeroRun(0, 1, 1).Write(_frame);
            session.Background[0].SendFrame(_frame);
            Thread.Sleep(100);
        }

        if (saysSwitchover)
        {
            // For which a round is missing that never comes.
            session.Send(MessageType.Switchover, new SwitchoverMessage(2, IsPaused: false, default, new byte[16]).Serialize());
        }

        long began = Environment.TickCount64;
        session.Control.Patience = s_patience;
        ProtocolException parting = Assert.Throws<ProtocolException>(() => session.Control.ReceiveHeader());
        Assert.Contains("said nothing for 1 s", parting.Message, StringComparison.Ordinal);
        Assert.InRange(Environment.TickCount64 - began, 500, 5_000);
        Assert.True(SpinWait.SpinUntil(() => destination.Progress.Phase == MigrationPhase.Waiting, s_patience));
        destination.Dispose();
        Assert.Throws<ObjectDisposedException>(() => receiving.WaitAsync(s_patience).GetAwaiter().GetResult());
    }

    [Fact]
    public void A_source_that_takes_no_answer_is_turned_away()
    {
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)));
        Task receiving = Task.Run(() => destination.Receive(_ => { }));
        using var session = new OutgoingConnections(new MigrationOptions { Connections = 1 }, new MigrationCounters());
        session.Open(destination.EndPoint);
        session.Send(MessageType.Layout, new MigrationLayout(Guid.NewGuid(), "test", GuestBacking.Memfd, _leaving.Memory.Regions).Serialize());
        _ = session.Control.Receive(MessageType.Armed, 0);

        // Each is answered, until no more answers fit in between; then it is its turn.
        session.Control.Patience = TimeSpan.FromSeconds(25);
        void SendOn()
        {
            while (true)
            {
                session.Control.Send(MessageType.Discard, []);
            }
        }

        _ = Assert.Throws<SocketException>(SendOn);
        Assert.False(receiving.IsCompleted);
        new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Postcopy }).Run(destination.EndPoint);
        Assert.True(receiving.Wait(TimeSpan.FromSeconds(30)));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Pages_are_not_discarded_in_the_middle_of_a_round(bool isDiscardedBefore)
    {
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions, GuestBacking.Anonymous)));
        _ = Task.Run(() => Record.Exception(() => destination.Receive(_ => { })));
        using var session = new OutgoingConnections(new MigrationOptions { Connections = 1 }, new MigrationCounters());
        session.Open(destination.EndPoint);
        session.Send(MessageType.Layout, new MigrationLayout(Guid.NewGuid(), "test", GuestBacking.Memfd, _leaving.Memory.Regions).Serialize());
        _ = session.Control.Receive(MessageType.Armed, 0);
        if (isDiscardedBefore)
        {
            session.Send(MessageType.Discard, [0, 1]);
            _ = session.Control.Receive(MessageType.Discarded, 0);
        }

        // A batch whose content does not follow yet.
        var batch = new byte[PageBatch.PrologueBytes];
        new PageBatch(0, 1, 0, 0, 1, PageEncoding.None, Page.Size, 0).Write(batch, Page.Size);
        session.Background[0].SendFrame(batch);
        if (!isDiscardedBefore)
        {
            Thread.Sleep(200);
            session.Send(MessageType.Discard, [0, 1]);
        }

        ProtocolException parting = Assert.Throws<ProtocolException>(() => session.Control.ReceiveHeader());
        Assert.Contains(isDiscardedBefore ? "after the last one" : "in the middle of a round", parting.Message, StringComparison.Ordinal);
    }

    private static void AssertTellsWhatToDo(string text)
    {
        Assert.Contains("'pageferry vm migrate --resume --to HOST:PORT'", text, StringComparison.Ordinal);
        Assert.Contains("'pageferry recover rollback'", text, StringComparison.Ordinal);
        Assert.DoesNotContain("vm receive", text, StringComparison.Ordinal);
    }

    private Task<MigrationException> Move(EndPoint destination) => Task.Run(() =>
        Assert.Throws<MigrationException>(() => new MigrationSource(_leaving, new MigrationOptions { Mode = MigrationMode.Postcopy, Connections = 1, ReconnectFor = TimeSpan.Zero }).Run(destination)));
}
