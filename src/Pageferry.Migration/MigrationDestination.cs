using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Waits for a guest and takes it in by post-copy: it runs as soon as its machine state is here.</summary>
public sealed class MigrationDestination : IDisposable
{
    private readonly Func<MigrationLayout, IArrivingGuest> _prepare;
    private readonly ILogger? _logger;
    private readonly ConnectionListener _listener;
    private MigrationCounters _counters = new() { Phase = MigrationPhase.Waiting };
    private volatile FaultEngine? _engine;

    /// <summary>Listens.</summary>
    /// <param name="listen">An address and a port, 0 for any.</param>
    /// <param name="prepare">Makes room for a guest; an exception's message goes to the source, where the guest goes on.</param>
    /// <param name="logger">Hears of sources that were turned away; null for nobody.</param>
    /// <param name="versions">The protocol versions to speak; null for all this build knows.</param>
    /// <param name="security">Who this side is and whom it trusts: every connection is then under TLS. Null for connections without TLS, from loopback only.</param>
    /// <param name="insecureNetwork">
    /// Whether to listen beyond loopback without TLS. Anyone on the way can then read and change the guest's memory and machine state, and
    /// anyone who reaches the port can send a guest.
    /// </param>
    /// <exception cref="ArgumentException">The address is beyond loopback, and there is neither a security nor <paramref name="insecureNetwork"/>.</exception>
    /// <exception cref="SocketException">The port is in use.</exception>
    public MigrationDestination(
        IPEndPoint listen,
        Func<MigrationLayout, IArrivingGuest> prepare,
        ILogger? logger = null,
        VersionRange? versions = null,
        MigrationSecurity? security = null,
        bool insecureNetwork = false)
        : this(listen, prepare, logger, versions ?? VersionRange.Current, security, insecureNetwork, isRehearsal: false)
    {
    }

    internal MigrationDestination(
        IPEndPoint listen,
        Func<MigrationLayout, IArrivingGuest> prepare,
        ILogger? logger,
        VersionRange versions,
        MigrationSecurity? security,
        bool insecureNetwork,
        bool isRehearsal)
    {
        if (security is null && !insecureNetwork && !IPAddress.IsLoopback(listen.Address))
        {
            throw new ArgumentException($"{listen} is beyond loopback, and there a guest's memory travels under TLS only. Give a certificate, a key and an authority.", nameof(listen));
        }

        if (!isRehearsal)
        {
            Rehearsal.Once();
        }

        _prepare = prepare;
        _logger = logger;
        _listener = new ConnectionListener(listen, versions, security, logger, MigrationSource.Patience);
    }

    /// <summary>Where it listens.</summary>
    public IPEndPoint EndPoint => _listener.EndPoint;

    /// <summary>How far the migration is, from any thread.</summary>
    public MigrationProgress Progress
    {
        get
        {
            MigrationProgress progress = _counters.Snapshot();
            return progress with { PagesRemaining = _engine?.UnknownPages ?? progress.PagesTotal };
        }
    }

    /// <summary>The engine that answers the guest's faults, once memory is armed: its statistics outlive the migration.</summary>
    public FaultEngine? Engine => _engine;

    /// <summary>How long a source may say nothing, on any connection, before the guest could run here.</summary>
    internal TimeSpan LongestSilence { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Whether what happens is kept for a report, in <see cref="Recording"/>.</summary>
    public bool IsRecorded { get; init; }

    /// <summary>What happened since a source came; null before, and unless it is recorded. Complete when <see cref="Receive"/> or <see cref="TurnedAway"/> is told.</summary>
    public MigrationRecording? Recording => _counters.Recording;

    /// <summary>The source's address; null before there is one.</summary>
    public EndPoint? Peer { get; private set; }

    /// <summary>
    /// Is told the reason when a source that was listened to failed before switchover, while <see cref="Progress"/>, <see cref="Engine"/> and
    /// <see cref="Recording"/> are still about it.
    /// </summary>
    public Action<string>? TurnedAway { get; set; }

    /// <summary>Takes in one guest. Sources that fail before switchover are turned away and waited on again.</summary>
    /// <param name="arrived">Called when the guest has been told to run, with the guest; from then on it belongs to who called this.</param>
    /// <exception cref="MigrationException">The link was lost after switchover: the guest stalls on what is missing.</exception>
    public void Receive(Action<IArrivingGuest> arrived)
    {
        while (true)
        {
            using var session = new IncomingSession(_prepare, LongestSilence);
            _counters = session.Counters;
            _counters.Recording = IsRecorded ? new MigrationRecording(() => Progress) : null;
            session.EngineStarted = engine => _engine = engine;
            try
            {
                session.Accept(_listener);
                Peer = session.Peer;
                session.Migrate(arrived);
                return;
            }
            catch (Exception failure) when (!session.SwitchedOver && failure is not ObjectDisposedException)
            {
                string reason = MigrationSource.Describe(failure);
                session.Part(reason);
                bool isHeard = _counters.Phase != MigrationPhase.Waiting;
                _counters.Phase = MigrationPhase.Failed;
                Recording?.End();
                if (isHeard)
                {
                    TurnedAway?.Invoke(reason);
                }

                Peer = null;
                _counters = new MigrationCounters { Phase = MigrationPhase.Waiting };
                _engine = null;
                if (_logger is not null)
                {
                    MigrationLog.TurnedAway(_logger, reason);
                }
            }
            catch (Exception failure) when (session.SwitchedOver)
            {
                throw new MigrationException(
                    $"The link to the source was lost after switchover: {MigrationSource.Describe(failure)} The guest goes on with the pages it has and stalls on the {_engine?.UnknownPages ?? 0} that are missing.",
                    switchedOver: true,
                    failure);
            }
            finally
            {
                session.Counters.Recording?.End();
            }
        }
    }

    /// <summary>Stops listening. A guest that has arrived is not touched.</summary>
    public void Dispose() => _listener.Dispose();
}
