using System.Net;
using System.Net.Sockets;
using System.Text;
using CsCheck;

namespace Pageferry.Migration.Tests;

/// <summary>Strangers cost a slot and a deadline, and neither disturb nor delay a session.</summary>
public sealed class ListenerTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly LogLines _log = new();
    private readonly ConnectionListener _listener;
    private readonly List<PeerConnection> _sources = [];

    public ListenerTests() => _listener = Listen(TimeSpan.FromSeconds(2));

    public void Dispose()
    {
        _listener.Dispose();
        _sources.ForEach(source => source.Dispose());
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 1)]
    [InlineData(5, 5)]
    [InlineData(16, 16)]
    public void A_session_has_the_connections_that_its_source_asked_for_in_any_order(byte asked, int count)
    {
        Task<Welcome> control = Introduce(ConnectionRole.Control, asked);
        using IncomingConnections session = _listener.AcceptControl();
        SessionId id = control.Result.Session;
        Assert.Equal(3, control.Result.Version);
        var welcomes = Enumerable.Range(0, count).Reverse().Select(index => Introduce(ConnectionRole.Background, (byte)index, id)).ToList();
        welcomes.Add(Introduce(ConnectionRole.Demand, 0, id));
        session.AcceptRest(s_patience);
        Assert.All(welcomes, welcome => Assert.True(welcome.Result.Session.Matches(id)));
        Assert.Equal(count, session.Background.Count);
        Assert.Equal(count + 2, session.All.Count);
        for (int index = 0; index < count; index++)
        {
            // Which one it is stands in its hello, whenever it came: the last one came first.
            Assert.Equal(_sources[count - index].Socket.LocalEndPoint, session.Background[index].Socket.RemoteEndPoint);
        }
    }

    [Fact]
    public void The_session_id_is_not_given_to_who_does_not_know_it()
    {
        _ = Introduce(ConnectionRole.Control, 1);
        using IncomingConnections session = _listener.AcceptControl();
        foreach (SessionId wrong in (SessionId[])[SessionId.None, SessionId.Create()])
        {
            foreach (ConnectionRole role in (ConnectionRole[])[ConnectionRole.Demand, ConnectionRole.Background])
            {
                AssertRefused(Introduce(role, 0, wrong), "names no session");
            }
        }

        // Nor can one that is not due come in by knowing it.
        AssertRefused(Introduce(ConnectionRole.Background, 1, session.Id), "not due");
        Assert.True(Introduce(ConnectionRole.Demand, 0, session.Id).Result.Session.Matches(session.Id));
        AssertRefused(Introduce(ConnectionRole.Demand, 0, session.Id), "not due");
        Assert.True(Introduce(ConnectionRole.Background, 0, session.Id).Result.Session.Matches(session.Id));
        session.AcceptRest(s_patience);
        AssertRefused(Introduce(ConnectionRole.Background, 0, session.Id), "not due");
    }

    [Fact]
    public void Session_ids_differ()
    {
        SessionId id = SessionId.Create();
        Span<byte> bytes = stackalloc byte[SessionId.Bytes];
        id.Write(bytes);
        Assert.True(SessionId.Read(bytes).Matches(id));
        Assert.False(SessionId.Create().Matches(id));
        for (int i = 0; i < bytes.Length; i++)
        {
            bytes[i] ^= 1;
            Assert.False(SessionId.Read(bytes).Matches(id));
            bytes[i] ^= 1;
        }
    }

    [Fact]
    public void Another_control_connection_is_told_that_a_migration_is_under_way()
    {
        _ = Introduce(ConnectionRole.Control, 1);
        using IncomingConnections session = _listener.AcceptControl();
        Task<Welcome> second = Introduce(ConnectionRole.Control, 1);
        SessionId id = session.Id;
        _ = Introduce(ConnectionRole.Demand, 0, id);
        _ = Introduce(ConnectionRole.Background, 0, id);
        session.AcceptRest(s_patience);
        AssertRefused(second, "Another migration is under way here");
        session.Control.Send(MessageType.Armed, []);
        Assert.Equal((MessageType.Armed, 0), _sources[0].ReceiveHeader());
    }

    [Fact]
    public void A_source_that_comes_while_a_session_ends_is_let_in()
    {
        _ = Introduce(ConnectionRole.Control, 1);
        Task<Welcome> next;
        using (_listener.AcceptControl())
        {
            next = Introduce(ConnectionRole.Control, 1);
            Thread.Sleep(200);
        }

        using IncomingConnections session = _listener.AcceptControl();
        Assert.True(next.Result.Session.Matches(session.Id));
    }

    [Fact]
    public void A_source_that_is_gone_before_it_is_let_in_is_nobody()
    {
        _ = Introduce(ConnectionRole.Control, 1);
        using (_listener.AcceptControl())
        {
            using Socket gone = ConnectRaw();
            _ = gone.Send(HelloFrame(ConnectionRole.Control, 1, SessionId.None));
            Assert.True(SpinWait.SpinUntil(() => _listener.Handshakes == 1, s_patience));

            // Time to read its hello; what is sent to it from now on fails.
            Thread.Sleep(100);
            gone.LingerState = new LingerOption(enable: true, seconds: 0);
        }

        Task<Welcome> next = Introduce(ConnectionRole.Control, 1);
        using IncomingConnections session = _listener.AcceptControl();
        Assert.True(next.Result.Session.Matches(session.Id));
    }

    [Fact]
    public void A_source_that_goes_ends_its_session_at_once()
    {
        Task<Welcome> control = Introduce(ConnectionRole.Control, 1);
        using IncomingConnections session = _listener.AcceptControl();
        Task waiting = Task.Run(() => session.AcceptRest(TimeSpan.FromMinutes(5)));
        control.Wait(s_patience);
        _sources[0].Dispose();
        _ = Assert.Throws<EndOfStreamException>(() => waiting.WaitAsync(s_patience).GetAwaiter().GetResult());
    }

    [Fact]
    public void A_source_that_parts_ends_its_session_with_its_reason()
    {
        Task<Welcome> control = Introduce(ConnectionRole.Control, 1);
        using IncomingConnections session = _listener.AcceptControl();
        Task waiting = Task.Run(() => session.AcceptRest(TimeSpan.FromMinutes(5)));
        control.Wait(s_patience);
        _sources[0].TryPart("It rains.");
        Assert.Contains("It rains.", Assert.Throws<ProtocolException>(() => waiting.WaitAsync(s_patience).GetAwaiter().GetResult()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_source_that_opens_nothing_more_is_parted_with_after_the_deadline()
    {
        _ = Introduce(ConnectionRole.Control, 3);
        using IncomingConnections session = _listener.AcceptControl();
        _ = Introduce(ConnectionRole.Background, 1, session.Id).Result;
        ProtocolException failure = Assert.Throws<ProtocolException>(() => session.AcceptRest(TimeSpan.FromMilliseconds(300)));
        Assert.Contains("3 of 4 are missing", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_peer_of_version_1_parts_with_both_versions_named()
    {
        using Socket old = ConnectRaw();
        old.Send(OldHello);
        string answer = ReadAll(old);
        Assert.Contains("version 1", answer, StringComparison.Ordinal);
        Assert.Contains("this destination 3", answer, StringComparison.Ordinal);
    }

    [Fact]
    public void A_destination_of_version_1_parts_with_both_versions_named()
    {
        using var old = new TcpListener(IPAddress.Loopback, 0);
        old.Start();
        var received = new byte[40];
        Task answering = Task.Run(() =>
        {
            using Socket source = old.AcceptSocket();
            source.ReceiveTimeout = (int)s_patience.TotalMilliseconds;
            int got = 0;
            while (got < received.Length)
            {
                got += source.Receive(received.AsSpan(got));
            }

            byte[] reason = Encoding.UTF8.GetBytes("The source speaks protocol version 3, this destination 1: use builds that share one.");
            source.Send([3, 0, 0, 0, (byte)reason.Length, 0, 0, 0, .. reason]);
        });
        using var leaving = new TestGuest(Memory.GuestMemory.Create(1 << 20));
        MigrationException failure = Assert.Throws<MigrationException>(() => new MigrationSource(leaving, new MigrationOptions { Connections = 1 }).Run(old.LocalEndpoint));
        answering.Wait(s_patience);
        Assert.Contains("The source speaks protocol version 3, this destination 1", failure.Message, StringComparison.Ordinal);

        // What version 1 reads stands where it stood.
        Assert.Equal(OldHello[..16], received[..16]);
        Assert.Equal([3, 0, 3, 0, 1, 1, 0, 0], received[16..24]);
    }

    [Fact]
    public void Strangers_of_every_kind_do_not_delay_a_session()
    {
        byte[] hello = HelloFrame(ConnectionRole.Control, 1, SessionId.None);
        var strangers = new List<Socket>();
        using var sending = new CancellationTokenSource();
        try
        {
            // Some are silent, some say other things, some part of the right thing, some of it a byte at a time.
            for (int i = 0; i < 5; i++)
            {
                strangers.Add(ConnectRaw());
                Socket web = ConnectRaw();
                web.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"u8);
                strangers.Add(web);
                Socket half = ConnectRaw();
                half.Send(hello.AsSpan(0, 7 * i));
                strangers.Add(half);
                Socket slow = ConnectRaw();
                strangers.Add(slow);
                new Thread(() => Drip(slow, hello, sending.Token)) { IsBackground = true }.Start();
                Socket wrong = ConnectRaw();
                wrong.Send(HelloFrame(ConnectionRole.Demand, 0, SessionId.Create()));
                strangers.Add(wrong);
            }

            long before = Environment.TickCount64;
            Task<Welcome> control = Introduce(ConnectionRole.Control, 2);
            using IncomingConnections session = _listener.AcceptControl();
            SessionId id = control.Result.Session;
            _ = Introduce(ConnectionRole.Demand, 0, id);
            _ = Introduce(ConnectionRole.Background, 0, id);
            _ = Introduce(ConnectionRole.Background, 1, id);
            session.AcceptRest(s_patience);
            Assert.InRange(Environment.TickCount64 - before, 0, 1500);

            // And the deadline takes each of them, the slow ones too.
            Assert.True(SpinWait.SpinUntil(() => _listener.Handshakes == 0, TimeSpan.FromSeconds(10)), $"{_listener.Handshakes} are left.");
            session.Control.Send(MessageType.Armed, []);
            Assert.Equal((MessageType.Armed, 0), _sources[0].ReceiveHeader());
        }
        finally
        {
            sending.Cancel();
            strangers.ForEach(stranger => stranger.Dispose());
        }
    }

    [Fact]
    public void A_stranger_that_closes_at_any_byte_is_forgotten()
    {
        byte[] hello = HelloFrame(ConnectionRole.Control, 1, SessionId.None);
        for (int bytes = 0; bytes < hello.Length; bytes++)
        {
            using Socket stranger = ConnectRaw();
            stranger.Send(hello.AsSpan(0, bytes));
        }

        Assert.True(SpinWait.SpinUntil(() => _listener.Handshakes == 0, s_patience));
        Task<Welcome> control = Introduce(ConnectionRole.Control, 1);
        using IncomingConnections session = _listener.AcceptControl();
        Assert.True(control.Result.Session.Matches(session.Id));
    }

    [Fact]
    public void No_more_than_32_are_in_their_handshake_and_the_next_takes_the_place_of_the_oldest()
    {
        using ConnectionListener listener = Listen(TimeSpan.FromSeconds(30));
        var strangers = new List<Socket>();
        for (int i = 0; i < ConnectionListener.MostHandshakes; i++)
        {
            strangers.Add(ConnectRaw(listener));
        }

        Assert.True(SpinWait.SpinUntil(() => listener.Handshakes == ConnectionListener.MostHandshakes, s_patience));
        strangers[0].Send(HelloFrame(ConnectionRole.Control, 1, SessionId.None).AsSpan(0, 20));
        strangers.Add(ConnectRaw(listener));

        // Of those that have said nothing.
        Assert.Contains("made room for another", ReadAll(strangers[1]), StringComparison.Ordinal);
        Assert.Equal(ConnectionListener.MostHandshakes, listener.Handshakes);
        strangers[0].Send(HelloFrame(ConnectionRole.Control, 1, SessionId.None).AsSpan(20));
        using IncomingConnections session = listener.AcceptControl();
        Assert.NotNull(session.Control);
        strangers.ForEach(stranger => stranger.Dispose());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Strangers_that_take_every_place_do_not_keep_a_source_out(bool speak)
    {
        using ConnectionListener listener = Listen(TimeSpan.FromSeconds(30));

        // Half of its hello is here when they come, from another address.
        using Socket slow = ConnectRaw(listener);
        byte[] hello = HelloFrame(ConnectionRole.Control, 1, SessionId.None);
        slow.Send(hello.AsSpan(0, 20));
        var strangers = new List<Socket>();
        for (int i = 0; i < 3 * ConnectionListener.MostHandshakes; i++)
        {
            var stranger = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            stranger.Bind(new IPEndPoint(IPAddress.Parse("127.0.0.2"), 0));
            stranger.Connect(listener.EndPoint);
            strangers.Add(stranger);
            if (speak)
            {
                _ = stranger.Send([1]);
            }
        }

        Assert.True(SpinWait.SpinUntil(() => listener.Handshakes == ConnectionListener.MostHandshakes, s_patience));
        slow.Send(hello.AsSpan(20));
        using (IncomingConnections session = listener.AcceptControl())
        {
            Assert.Equal(IPAddress.Loopback, ((IPEndPoint)session.Control.Socket.RemoteEndPoint!).Address);
        }

        // And one that comes when all places are taken.
        var source = new PeerConnection(ConnectRaw(listener)) { Patience = s_patience };
        _sources.Add(source);
        Task<Welcome> welcome = Task.Run(() => source.Introduce(new Hello(VersionRange.Current, ConnectionRole.Control, 1, SessionId.None)));
        using IncomingConnections next = listener.AcceptControl();
        Assert.True(welcome.Result.Session.Matches(next.Id));
        Assert.InRange(listener.Handshakes, 1, ConnectionListener.MostHandshakes);
        strangers.ForEach(stranger => stranger.Dispose());
    }

    [Fact]
    public void Strangers_do_not_fill_the_log()
    {
        for (int i = 0; i < 100; i++)
        {
            using Socket stranger = ConnectRaw();
            stranger.Send("GET / HTTP/1.1\r\n\r\n"u8);
            _ = ReadAll(stranger);
        }

        Assert.InRange(_log.Lines.Count, 1, 20);
    }

    [Fact]
    public void A_listener_that_is_disposed_ends_who_waits()
    {
        Task accepting = Task.Run(() => _listener.AcceptControl());
        using Socket stranger = ConnectRaw();
        Assert.True(SpinWait.SpinUntil(() => _listener.Handshakes == 1, s_patience));
        _listener.Dispose();
        _ = Assert.Throws<ObjectDisposedException>(() => accepting.WaitAsync(s_patience).GetAwaiter().GetResult());
        _ = ReadAll(stranger);
        Assert.True(SpinWait.SpinUntil(() => _listener.Handshakes == 0, s_patience));
    }

    [Fact]
    public void A_hello_survives_its_bytes() =>
        Gen.Select(Gen.UShort, Gen.UShort, Gen.Int[1, 3], Gen.Byte[0, 15]).Sample((low, more, role, index) =>
        {
            var versions = new VersionRange(low, (ushort)Math.Min(low + more, ushort.MaxValue));
            var hello = new Hello(versions, (ConnectionRole)role, role == 2 ? (byte)0 : index, SessionId.Create());
            var payload = new byte[Hello.Bytes];
            hello.Write(payload);
            return Hello.Read(payload, versions, out ushort version) == hello && version == versions.Highest;
        });

    [Fact]
    public void No_bytes_harm_the_reader_of_hellos()
    {
        var valid = new byte[Hello.Bytes];
        new Hello(VersionRange.Current, ConnectionRole.Background, 3, SessionId.Create()).Write(valid);
        Gen.Select(Gen.Int[0, Hello.Bytes - 1], Gen.Byte, Gen.Int[0, Hello.Bytes]).Sample((at, value, length) =>
        {
            byte[] changed = [.. valid];
            changed[at] = value;
            return IsHelloOrRefused(changed) && IsHelloOrRefused(valid[..length]);
        });
        Gen.Byte.Array[0, 80].Sample(IsHelloOrRefused);
    }

    [Fact]
    public void No_bytes_harm_the_listener()
    {
        byte[] valid = HelloFrame(ConnectionRole.Background, 3, SessionId.Create());
        Gen.Select(Gen.Int[0, valid.Length - 1], Gen.Byte, Gen.Byte.Array[0, 60]).Sample(
            (at, value, rest) =>
            {
                byte[] changed = [.. valid, .. rest];
                changed[at] = value;
                using Socket stranger = ConnectRaw();
                stranger.Send(changed);
                stranger.Shutdown(SocketShutdown.Send);
                // It is told why not, in its own words if it sent an error; it is not welcome.
                Assert.False(ReadAll(stranger).StartsWith((char)MessageType.Welcome));
            },
            iter: 200,
            threads: 1);
        Assert.True(SpinWait.SpinUntil(() => _listener.Handshakes == 0, s_patience));
    }

    [Theory]
    [InlineData(12, 0, "role 0")]
    [InlineData(12, 4, "role 4")]
    [InlineData(13, 16, "index 16")]
    [InlineData(14, 1, "1 behind it")]
    [InlineData(15, 1, "256 behind it")]
    public void A_hello_that_makes_no_sense_is_named(int at, byte value, string named)
    {
        var payload = new byte[Hello.Bytes];
        new Hello(VersionRange.Current, ConnectionRole.Background, 0, SessionId.None).Write(payload);
        payload[at] = value;
        Assert.Contains(named, Assert.Throws<ProtocolException>(() => Hello.Read(payload, VersionRange.Current, out _)).Message, StringComparison.Ordinal);
    }

    /// <summary>The control connection's hello as version 1 sends it.</summary>
    private static byte[] OldHello => [1, 0, 0, 0, 32, 0, 0, 0, .. "PAGEFERY"u8, 1, 0, 1, 0, 1, 0, 0, 0, .. new byte[16]];

    private static bool IsHelloOrRefused(byte[] payload)
    {
        try
        {
            Hello hello = Hello.Read(payload, VersionRange.Current, out ushort version);
            var written = new byte[Hello.Bytes];
            hello.Write(written);
            return version == VersionRange.Current.Highest && written.AsSpan().SequenceEqual(payload);
        }
        catch (ProtocolException)
        {
            return true;
        }
    }

    private static byte[] HelloFrame(ConnectionRole role, byte index, SessionId session)
    {
        var payload = new byte[Hello.Bytes];
        new Hello(VersionRange.Current, role, index, session).Write(payload);
        return [1, 0, 0, 0, Hello.Bytes, 0, 0, 0, .. payload];
    }

    private static void Drip(Socket socket, byte[] bytes, CancellationToken cancellation)
    {
        try
        {
            for (int at = 0; at < bytes.Length && !cancellation.WaitHandle.WaitOne(TimeSpan.FromMilliseconds(200)); at++)
            {
                _ = socket.Send(bytes.AsSpan(at, 1));
            }
        }
        catch (Exception end) when (end is SocketException or ObjectDisposedException)
        {
            // Refused.
        }
    }

    private static string ReadAll(Socket socket)
    {
        var text = new StringBuilder();
        var buffer = new byte[4096];
        socket.ReceiveTimeout = (int)s_patience.TotalMilliseconds;
        try
        {
            while (socket.Receive(buffer) is > 0 and int received)
            {
                text.Append(Encoding.UTF8.GetString(buffer, 0, received));
            }
        }
        catch (SocketException end) when (end.SocketErrorCode == SocketError.ConnectionReset)
        {
            // Closed all the same.
        }

        return text.ToString();
    }

    private static void AssertRefused(Task<Welcome> introduction, string reason) =>
        Assert.Contains(reason, Assert.Throws<ProtocolException>(() => introduction.WaitAsync(s_patience).GetAwaiter().GetResult()).Message, StringComparison.Ordinal);

    private ConnectionListener Listen(TimeSpan patience) =>
        new(new IPEndPoint(IPAddress.Loopback, 0), VersionRange.Current, security: null, _log, patience);

    private Socket ConnectRaw(ConnectionListener? listener = null)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        socket.Connect((listener ?? _listener).EndPoint);
        return socket;
    }

    private Task<Welcome> Introduce(ConnectionRole role, byte index, SessionId session = default)
    {
        var source = new PeerConnection(ConnectRaw()) { Patience = s_patience };
        _sources.Add(source);
        return Task.Factory.StartNew(
            () => source.Introduce(new Hello(VersionRange.Current, role, index, session)), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
    }
}
