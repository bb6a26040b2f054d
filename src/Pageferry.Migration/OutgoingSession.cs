using System.Diagnostics;
using System.Net;

namespace Pageferry.Migration;

/// <summary>A session's connections at the source, and what its threads share.</summary>
internal sealed class OutgoingSession(MigrationOptions options, MigrationCounters counters) : IDisposable
{
    /// <summary>
    /// How much background content may be queued between two sides of one host. A page that the guest touches while it is queued waits for all
    /// before it, and a queue that outgrows the CPU's cache makes both sides slower. Over a network the kernel fits the queue to the delay.
    /// </summary>
    private const int LoopbackQueueBytes = 128 << 10;

    private readonly List<PeerConnection> _all = [];
    private readonly List<PeerConnection> _background = [];

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

    /// <summary>How long a message and its answer took when nothing else went.</summary>
    internal TimeSpan RoundTrip { get; private set; }

    /// <summary>Opens the connections, each with its handshake.</summary>
    internal void Open(EndPoint destination)
    {
        var connector = new PeerConnector(destination, options.Security, options.InsecureNetwork);
        Welcome welcome = connector.Connect(_all).Introduce(new Hello(options.Versions, ConnectionRole.Control, (byte)options.Connections, SessionId.None));
        SessionId session = welcome.Session;
        counters.ProtocolVersion = welcome.Version;
        PeerConnection demand = connector.Connect(_all);
        long began = Stopwatch.GetTimestamp();
        _ = demand.Introduce(new Hello(options.Versions, ConnectionRole.Demand, 0, session));
        RoundTrip = Stopwatch.GetElapsedTime(began);
        for (byte i = 0; i < options.Connections; i++)
        {
            PeerConnection background = connector.Connect(_all);
            _ = background.Introduce(new Hello(options.Versions, ConnectionRole.Background, i, session));
            _background.Add(background);
        }

        if (demand.Socket.RemoteEndPoint is IPEndPoint peer && IPAddress.IsLoopback(peer.Address))
        {
            demand.SkipPacing();
            _background.ForEach(FitToLoopback);
        }
    }

    /// <summary>Fits a background connection to two sides of one host.</summary>
    internal static void FitToLoopback(PeerConnection background)
    {
        background.SkipPacing();
        background.Socket.SendBufferSize = LoopbackQueueBytes;
    }

    /// <summary>Sends a control message.</summary>
    internal void Send(MessageType type, ReadOnlySpan<byte> payload)
    {
        Control.Send(type, payload);
        counters.AddControl(PeerConnection.HeaderBytes + payload.Length);
    }

    /// <summary>From now on the guest's truth is on both sides: no deadline ends a connection.</summary>
    internal void WaitForEver() => _all.ForEach(connection => connection.Patience = TimeSpan.Zero);

    public void Dispose() => _all.ForEach(connection => connection.Dispose());
}
