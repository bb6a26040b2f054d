using System.Diagnostics;
using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>A link at the source: its connections, and what their threads share.</summary>
internal sealed class OutgoingConnections(MigrationOptions options, MigrationCounters counters) : IDisposable
{
    /// <summary>
    /// How much background content may be queued between two sides of one host. A page that the guest touches while it is queued waits for all
    /// before it, and a queue that outgrows the CPU's cache makes both sides slower. Over a network the kernel fits the queue to the delay.
    /// </summary>
    private const int LoopbackQueueBytes = 128 << 10;

    private readonly List<PeerConnection> _all = [];
    private readonly List<PeerConnection> _background = [];
    private readonly CancellationTokenSource _cancelling = new();
    private Heartbeat? _heartbeat;

    internal MigrationOptions Options => options;

    internal MigrationCounters Counters => counters;

    /// <summary>Holds the background to its rate before the switchover.</summary>
    internal BandwidthLimit PrecopyLimit { get; } = new(options.MaxBandwidth);

    /// <summary>Holds the background to its rate after the switchover.</summary>
    internal BandwidthLimit PostcopyLimit { get; } = new(options.MaxPostcopyBandwidth);

    /// <summary>All connections that were opened.</summary>
    internal IReadOnlyList<PeerConnection> All => _all;

    internal PeerConnection Control => _all[0];

    internal PeerConnection Demand => _all[1];

    internal IReadOnlyList<PeerConnection> Background => _background;

    /// <summary>How long a message and its answer took when nothing else went, at best: one that was held up would be reckoned with in each downtime that is expected.</summary>
    internal TimeSpan RoundTrip { get; private set; } = TimeSpan.MaxValue;

    /// <summary>The session that the destination knows the guest by.</summary>
    internal SessionId Session { get; private set; }

    /// <summary>Opens the connections of a session that begins.</summary>
    /// <param name="destination">Where to.</param>
    internal void Open(EndPoint destination) => Open(destination, SessionId.None, MigrationSource.Patience, MigrationSource.Patience);

    /// <summary>Opens the connections, each with its handshake.</summary>
    /// <param name="destination">Where to.</param>
    /// <param name="resumed">The session to come back to; none to begin one.</param>
    /// <param name="connectPatience">How long each may take to be connected.</param>
    /// <param name="patience">How long the destination may take for each step of the handshake then.</param>
    internal void Open(EndPoint destination, SessionId resumed, TimeSpan connectPatience, TimeSpan patience)
    {
        var connector = new PeerConnector(destination, options.Security, options.InsecureNetwork, connectPatience, patience, _cancelling.Token);
        Welcome welcome = connector.Connect(_all).Introduce(new Hello(options.Versions, ConnectionRole.Control, (byte)options.Connections, resumed));
        SessionId session = welcome.Session;
        Session = session;
        counters.ProtocolVersion = welcome.Version;
        PeerConnection demand = connector.Connect(_all);
        Introduce(demand, new Hello(options.Versions, ConnectionRole.Demand, 0, session));
        for (byte i = 0; i < options.Connections; i++)
        {
            PeerConnection background = connector.Connect(_all);
            Introduce(background, new Hello(options.Versions, ConnectionRole.Background, i, session));
            _background.Add(background);
        }

        if (demand.Socket.RemoteEndPoint is IPEndPoint peer && IPAddress.IsLoopback(peer.Address))
        {
            demand.SkipPacing();
            _background.ForEach(FitToLoopback);
        }
    }

    private void Introduce(PeerConnection connection, Hello hello)
    {
        long began = Stopwatch.GetTimestamp();
        _ = connection.Introduce(hello);
        TimeSpan took = Stopwatch.GetElapsedTime(began);
        RoundTrip = took < RoundTrip ? took : RoundTrip;
    }

    /// <summary>Fits a background connection to two sides of one host.</summary>
    internal static void FitToLoopback(PeerConnection background)
    {
        background.SkipPacing();
        background.Socket.SendBufferSize = LoopbackQueueBytes;
    }

    /// <summary>Ends what is waited for from the destination, from any thread; it can still be told why.</summary>
    internal void Cancel()
    {
        try
        {
            _cancelling.Cancel();
        }
        catch (ObjectDisposedException)
        {
            // Nothing is waited for any more.
        }
    }

    /// <summary>Sends a control message.</summary>
    internal void Send(MessageType type, ReadOnlySpan<byte> payload)
    {
        Control.Send(type, payload);
        AddControl(payload);
    }

    /// <summary>Sends a control message, which the destination has to take within <see cref="MigrationSource.Patience"/> and a second for each MiB.</summary>
    internal void SendInTime(MessageType type, ReadOnlySpan<byte> payload)
    {
        Control.SendWithin(MigrationSource.Patience + TimeSpan.FromSeconds(payload.Length >> 20), type, payload);
        AddControl(payload);
    }

    /// <summary>From now on the guest's truth is on both sides: no answer has a deadline, but silence means that the link is lost.</summary>
    internal void ExpectLife()
    {
        _all.ForEach(connection => connection.Patience = options.LinkTimeout);
        _heartbeat = new Heartbeat(_all);
    }

    /// <summary>Tells the destination why this side parts, as far as it still listens.</summary>
    internal void Part(string reason) => _all.ForEach(connection => connection.TryPart(reason));

    public void Dispose()
    {
        if (_heartbeat is not null)
        {
            _all.ForEach(connection => connection.Shutdown());
            _heartbeat.Dispose();
        }

        _all.ForEach(connection => connection.Dispose());
        _cancelling.Dispose();
    }

    private void AddControl(ReadOnlySpan<byte> payload) => counters.AddControl(PeerConnection.HeaderBytes + payload.Length);
}
