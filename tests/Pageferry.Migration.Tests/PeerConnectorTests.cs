using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Pageferry.Migration.Tests;

public sealed class PeerConnectorTests : IDisposable
{
    /// <summary>In /proc/self/fdinfo, octal there.</summary>
    private const long NonBlocking = 0x800;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<PeerConnection> _connections = [];
    private readonly List<Socket> _waiting = [];

    public PeerConnectorTests() => _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));

    public void Dispose()
    {
        _connections.ForEach(connection => connection.Dispose());
        _waiting.ForEach(socket => socket.Dispose());
        _listener.Dispose();
    }

    [Fact]
    public void Who_waits_for_a_peer_waits_in_the_kernel()
    {
        _listener.Listen();
        using PeerConnection connection = Connector(s_patience).Connect(_connections);
        string flags = File.ReadLines($"/proc/self/fdinfo/{connection.Socket.Handle}").First(line => line.StartsWith("flags:", StringComparison.Ordinal));
        Assert.Equal(0, Convert.ToInt64(flags.Split('\t')[1], 8) & NonBlocking);
    }

    [Fact]
    public void A_peer_that_does_not_answer_is_waited_for_as_long_as_it_may_take()
    {
        FillBacklog();
        var clock = Stopwatch.StartNew();
        TimeoutException late = Assert.Throws<TimeoutException>(() => Connector(TimeSpan.FromMilliseconds(300)).Connect(_connections));
        Assert.Contains("a connection was waited for, for 0.3 s", late.Message, StringComparison.Ordinal);
        Assert.InRange(clock.Elapsed.TotalSeconds, 0.25, 20);
    }

    [Fact]
    public void A_connection_that_is_being_made_can_be_cancelled()
    {
        FillBacklog();
        using var cancelling = new CancellationTokenSource(TimeSpan.FromMilliseconds(300));
        var clock = Stopwatch.StartNew();
        _ = Assert.ThrowsAny<OperationCanceledException>(() => Connector(s_patience, cancelling.Token).Connect(_connections));
        Assert.True(clock.Elapsed < s_patience / 2, clock.Elapsed.ToString("c", CultureInfo.InvariantCulture));
    }

    [Fact]
    public void Where_nobody_listens_a_connection_is_refused_at_once()
    {
        SocketException refused = Assert.ThrowsAny<SocketException>(() => Connector(s_patience).Connect(_connections));
        Assert.Equal(SocketError.ConnectionRefused, refused.SocketErrorCode);
    }

    private PeerConnector Connector(TimeSpan connectPatience, CancellationToken cancelled = default) =>
        new(_listener.LocalEndPoint!, security: null, insecureNetwork: false, connectPatience, s_patience, cancelled);

    /// <summary>Has the kernel leave further connections without an answer.</summary>
    private void FillBacklog()
    {
        _listener.Listen(0);
        for (int i = 0; i < 4; i++)
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
            _waiting.Add(socket);
            SocketException pending = Assert.ThrowsAny<SocketException>(() => socket.Connect(_listener.LocalEndPoint!));
            Assert.Equal(SocketError.WouldBlock, pending.SocketErrorCode);
        }
    }
}
