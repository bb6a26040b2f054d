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

    /// <summary>Takes in one guest. Sources that fail before switchover are turned away and waited on again.</summary>
    /// <param name="arrived">Called when the guest has been told to run, with the guest; from then on it belongs to who called this.</param>
    /// <exception cref="MigrationException">The link was lost after switchover: the guest stalls on what is missing.</exception>
    public void Receive(Action<IArrivingGuest> arrived)
    {
        while (true)
        {
            using var session = new IncomingSession(_prepare, LongestSilence);
            _counters = session.Counters;
            session.EngineStarted = engine => _engine = engine;
            try
            {
                session.Accept(_listener);
                session.Migrate(arrived);
                return;
            }
            catch (Exception failure) when (!session.SwitchedOver && failure is not ObjectDisposedException)
            {
                string reason = MigrationSource.Describe(failure);
                session.Part(reason);
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
        }
    }

    /// <summary>Stops listening. A guest that has arrived is not touched.</summary>
    public void Dispose() => _listener.Dispose();
}
