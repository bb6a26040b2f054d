using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Moves a guest away by post-copy: it stops here, goes on at the destination, and its pages follow.</summary>
public sealed class MigrationSource
{
    /// <summary>
    /// How much background content may be queued between the two sides. A page that the guest touches while it is queued waits for all
    /// before it, and a queue that outgrows the CPU's cache makes both sides slower. Enough for loopback, which has no delay to fill.
    /// </summary>
    internal const int BackgroundQueueBytes = 128 << 10;

    private const byte BackgroundConnections = 1;

    /// <summary>The most bytes of a machine state: 16 MiB.</summary>
    public const int MostStateBytes = 16 << 20;

    /// <summary>How long any step before switchover may take: 10 s.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private readonly IMigratingGuest _guest;
    private readonly VersionRange _versions;
    private readonly MigrationSecurity? _security;
    private readonly bool _insecureNetwork;
    private readonly MigrationCounters _counters;
    private bool _switchedOver;

    /// <summary>Makes a migration; nothing happens before <see cref="Run"/>.</summary>
    /// <param name="guest">The guest.</param>
    /// <param name="versions">The protocol versions to speak; null for all this build knows.</param>
    /// <param name="security">Who this side is and whom it trusts: every connection is then under TLS. Null for connections without TLS, to loopback only.</param>
    /// <param name="insecureNetwork">
    /// Whether to connect beyond loopback without TLS. Anyone on the way can then read and change the guest's memory and machine state.
    /// </param>
    public MigrationSource(IMigratingGuest guest, VersionRange? versions = null, MigrationSecurity? security = null, bool insecureNetwork = false)
        : this(guest, versions ?? VersionRange.Current, security, insecureNetwork, isRehearsal: false)
    {
    }

    internal MigrationSource(IMigratingGuest guest, VersionRange versions, MigrationSecurity? security, bool insecureNetwork, bool isRehearsal)
    {
        if (!isRehearsal)
        {
            Rehearsal.Once();
        }

        _guest = guest;
        _versions = versions;
        _security = security;
        _insecureNetwork = insecureNetwork;
        _counters = new MigrationCounters { PagesTotal = (long)guest.Memory.PageCount };
    }

    /// <summary>How far the migration is, from any thread.</summary>
    public MigrationProgress Progress => _counters.Snapshot();

    /// <summary>Migrates. Returns when every page is at the destination.</summary>
    /// <param name="destination">
    /// Where a <see cref="MigrationDestination"/> listens: an <see cref="IPEndPoint"/> or a <see cref="DnsEndPoint"/>. Under TLS its
    /// certificate has to be for that name or address, unless the security names another.
    /// </param>
    /// <exception cref="MigrationException">
    /// It failed. Before switchover the guest goes on here; after it the guest is the destination's and is never resumed here.
    /// </exception>
    public void Run(EndPoint destination)
    {
        var connections = new List<PeerConnection>();
        try
        {
            Migrate(destination, connections);
            _counters.Phase = MigrationPhase.Completed;
        }
        catch (Exception failure)
        {
            string reason = Describe(failure);
            connections.ForEach(connection => connection.TryPart(reason));
            _counters.Phase = _switchedOver ? MigrationPhase.Stalled : MigrationPhase.Failed;
            throw new MigrationException(
                _switchedOver
                    ? $"The migration to {destination} lost its destination after switchover: {reason} The guest is the destination's; it stalls there on pages that only this side has. Its memory is kept here."
                    : $"The migration to {destination} failed: {reason} The guest goes on here.",
                _switchedOver,
                failure);
        }
        finally
        {
            connections.ForEach(connection => connection.Dispose());
        }
    }

    /// <summary>What a person can do with a failure of a socket or a peer.</summary>
    internal static string Describe(Exception failure) => failure switch
    {
        SocketException { SocketErrorCode: SocketError.ConnectionRefused } => "Nobody listens there (ECONNREFUSED). Start the destination first: pageferry vm receive.",
        SocketException { SocketErrorCode: SocketError.TimedOut or SocketError.WouldBlock } => $"The peer did not answer within {Patience.TotalSeconds:F0} s.",
        SocketException socket => $"{socket.Message} ({socket.SocketErrorCode}).",
        _ => failure.Message,
    };

    private void Migrate(EndPoint destination, List<PeerConnection> connections)
    {
        var connector = new PeerConnector(destination, _security, _insecureNetwork);
        PeerConnection control = connector.Connect(connections);
        SessionId session = control.Introduce(new Hello(_versions, ConnectionRole.Control, BackgroundConnections, SessionId.None)).Session;
        PeerConnection demand = connector.Connect(connections);
        _ = demand.Introduce(new Hello(_versions, ConnectionRole.Demand, 0, session));
        PeerConnection background = connector.Connect(connections);
        _ = background.Introduce(new Hello(_versions, ConnectionRole.Background, 0, session));

        GuestMemory memory = _guest.Memory;
        Send(control, MessageType.Layout, new MigrationLayout(_guest.Id, _guest.MachineKind, memory.Backing, memory.Regions).Serialize());
        _ = control.Receive(MessageType.Armed, 0);

        var server = new PageServer(memory, _counters);
        long stopped = SwitchOver(control);

        // From here on the guest's truth is at the destination, and the rest of it here: no deadline ends that.
        demand.Patience = TimeSpan.Zero;
        background.Patience = TimeSpan.Zero;
        background.Socket.SendBufferSize = BackgroundQueueBytes;
        control.Patience = TimeSpan.Zero;
        var failures = new PageThreads(connections);
        failures.Start("demand pages", () => server.ServeDemand(demand));
        failures.Run(() =>
        {
            _ = control.Receive(MessageType.Running, 0);
            _counters.Downtime = Stopwatch.GetElapsedTime(stopped);

            // Not earlier: it would compete with the first pages the guest asks for.
            failures.Start("background pages", () => server.FillBackground(background));
            _ = control.Receive(MessageType.Complete, 0);
            failures.Finish();
            Send(control, MessageType.Released, []);
        });
    }

    /// <returns>When the guest had stopped.</returns>
    private long SwitchOver(PeerConnection control)
    {
        _counters.Phase = MigrationPhase.SwitchingOver;
        long stopped = Stopwatch.GetTimestamp();
        _guest.Pause();
        try
        {
            byte[] state = _guest.SaveState();
            if (state.Length > MostStateBytes)
            {
                throw new InvalidOperationException($"The machine state has {state.Length} bytes; the protocol allows {MostStateBytes}.");
            }

            Send(control, MessageType.MachineState, state);
            _ = control.Receive(MessageType.StateLoaded, 0);

            // Once a byte of it may have left, the destination may run the guest.
            _switchedOver = true;
            Send(control, MessageType.Start, []);
            _counters.Phase = MigrationPhase.PostCopy;
            return stopped;
        }
        finally
        {
            if (!_switchedOver)
            {
                _guest.Resume();
            }
        }
    }

    private void Send(PeerConnection connection, MessageType type, ReadOnlySpan<byte> payload)
    {
        connection.Send(type, payload);
        _counters.AddControl(PeerConnection.HeaderBytes + payload.Length);
    }
}
