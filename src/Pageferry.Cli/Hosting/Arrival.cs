using System.Net;
using System.Net.Sockets;
using HdrHistogram;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>A place where a guest can arrive in this process.</summary>
internal sealed class Arrival : IArrival
{
    private readonly MigrationDestination _destination;
    private readonly RecentLatencies _recent = new();
    private readonly RecentRate _rate = new();
    private readonly ArrivalOptions _options;
    private readonly ILogger _logger;
    private StallWatch? _stalls;

    private Arrival(MigrationDestination destination, ArrivalOptions options, ILogger logger)
    {
        _logger = logger;
        _destination = destination;
        _options = options;
    }

    /// <inheritdoc/>
    public IPEndPoint Endpoint => _destination.EndPoint;

    /// <inheritdoc/>
    public bool IsListening { get; private set; } = true;

    /// <inheritdoc/>
    public MigrationStatus? Status
    {
        get
        {
            MigrationProgress progress = _destination.Progress;
            if (progress.Phase == MigrationPhase.Waiting)
            {
                return null;
            }

            MigrationStatus status = MigrationStatus.Of(progress) with
            {
                Role = "destination",
                Peer = _destination.Peer?.ToString(),
                Tls = _options.Security is not null,
                BytesMibPerS = _rate.Observe((ulong)progress.BytesSent) / (1 << 20),
                Stall = _stalls?.Stall is { } stall ? StallStatus.Of(stall) : null,
                Report = _options.Report?.WrittenTo,
                ReportError = _options.Report?.Error,
            };
            return _destination.Engine is { } engine ? WithFaults(status, engine.Statistics) : status;
        }
    }

    /// <summary>What there is to report of what came last; null if nothing is recorded.</summary>
    internal RecordedMigration? Recorded => _destination.Recording is { } recording ? RecordedMigration.Of(recording, _destination.Engine?.Statistics) : null;

    /// <inheritdoc/>
    EngineStatus? IArrival.Engine => null;

    /// <summary>Listens.</summary>
    /// <param name="listen">Where.</param>
    /// <param name="options">How to take a guest in.</param>
    /// <param name="logger">Hears of sources that were turned away.</param>
    /// <returns>The place.</returns>
    /// <exception cref="CommandException">It can't listen there.</exception>
    internal static Arrival Listen(NetworkEndpoint listen, ArrivalOptions options, ILogger logger)
    {
        MigrationDestination destination = OnPort(listen, options, local => new MigrationDestination(
            local, layout => Prepare(layout, options, logger), logger, security: options.Security, insecureNetwork: options.InsecureNetwork)
        {
            IsRecorded = options.Report is not null,
            ReconnectFor = options.ReconnectFor,
            LinkTimeout = options.LinkTimeout,
        });
        return new Arrival(destination, options, logger);
    }

    /// <summary>Takes guests in for another process.</summary>
    /// <param name="listening">The socket that process listens on; owned by the result.</param>
    /// <param name="prepare">Has that process make room for a guest.</param>
    /// <param name="held">A guest that is there already; null if there is none.</param>
    /// <param name="options">How to take a guest in.</param>
    /// <param name="isRecorded">Whether there is to be anything to report.</param>
    /// <param name="logger">Hears of sources that were turned away.</param>
    /// <returns>The place.</returns>
    internal static Arrival Over(
        Socket listening, Func<MigrationLayout, IArrivingGuest> prepare, IArrivingGuest? held, ArrivalOptions options, bool isRecorded, ILogger logger)
    {
        var destination = new MigrationDestination(listening, prepare, held, logger, options.Security)
        {
            IsRecorded = isRecorded,
            ReconnectFor = options.ReconnectFor,
            LinkTimeout = options.LinkTimeout,
        };
        return new Arrival(destination, options, logger);
    }

    /// <summary>Makes what listens on a port, and says what to do if it can't be had.</summary>
    /// <exception cref="CommandException">It can't listen there.</exception>
    internal static T OnPort<T>(NetworkEndpoint listen, ArrivalOptions options, Func<IPEndPoint, T> make)
    {
        IPEndPoint local = listen.ToLocal(onlyLoopback: options.Security is null && !options.InsecureNetwork);
        try
        {
            return make(local);
        }
        catch (SocketException e)
        {
            throw new CommandException($"Could not listen on {listen}: {e.SocketErrorCode switch
            {
                SocketError.AddressAlreadyInUse => $"{e.Message} (EADDRINUSE). Choose another port, or 0 to let the kernel pick one.",
                SocketError.AddressNotAvailable => $"{local.Address} is no address of this host (EADDRNOTAVAIL). Choose one that is, or 0.0.0.0 for all.",
                SocketError.AccessDenied => $"{e.Message} (EACCES). Choose a port from 1024 up.",
                _ => $"{e.Message} ({e.SocketErrorCode}).",
            }}");
        }
    }

    /// <inheritdoc/>
    Task IArrival.ReceiveAsync(Action<HostedGuest> arrived, Action<string> turnedAway, Action fenced) =>
        ReceiveAsync(guest => arrived(((ArrivingGuest)guest).Hosted), turnedAway, fenced);

    /// <summary>Takes one guest in, or goes on with one whose source was given up.</summary>
    /// <param name="arrived">Called when the guest runs here and its memory is still arriving.</param>
    /// <param name="turnedAway">Called with the reason when a guest did not come: another is waited for.</param>
    /// <param name="fenced">Called when the source has taken the guest back, and it was stopped here.</param>
    /// <returns>Completes when all its memory is here; fails with <see cref="MigrationException"/> when the link is lost before.</returns>
    internal Task ReceiveAsync(Action<IArrivingGuest> arrived, Action<string> turnedAway, Action fenced) => Task.Factory.StartNew(
        () =>
        {
            _destination.TurnedAway = turnedAway;
            _destination.Fenced = fenced;
            _destination.Receive(guest =>
            {
                _stalls = new StallWatch(guest.Engine, _options.StallWarning, () => _destination.Progress.WaitsFor, _logger);
                arrived(guest);
            });

            // One process, one guest: whoever comes later is told that nobody listens. Not after a failure: its source may come back.
            IsListening = false;
            Dispose();
        },
        CancellationToken.None,
        TaskCreationOptions.LongRunning,
        TaskScheduler.Default);

    /// <inheritdoc/>
    public GuestHalf Export() => _destination.Export();

    /// <inheritdoc/>
    public string? WriteReport(VmStatus status, Guid guest, string? error) =>
        Recorded is { } recorded ? _options.Report?.Write(() => MigrationReport.Of(status, guest, recorded, error)) : null;

    /// <inheritdoc/>
    Task IArrival.ReplaceEngineAsync(string? program) =>
        throw new CommandException("The engine is in the guest's own process and can't be replaced. Start the destination with --engine separate.");

    /// <summary>Listens no longer. A guest that has arrived is not touched.</summary>
    public void Dispose()
    {
        _stalls?.Dispose();
        _destination.Dispose();
    }

    private static ArrivingGuest Prepare(MigrationLayout layout, ArrivalOptions options, ILogger logger)
    {
        var kind = MachineKind.Parse(layout.MachineKind);
        IMachine machine = MachineFactory.CreateEmpty(kind, MachineMemory.Create(layout.Regions, options.Backing ?? layout.Backing), options.DirtyTracking);
        machine.Engine = new FaultEngine(machine.Memory, logger, options.Delivery);
        return new ArrivingGuest(new HostedGuest(layout.GuestId, machine), machine.Engine);
    }

    // A fault waits for the source when its page has to be asked for, and when its page is on its way already.
    private MigrationStatus WithFaults(MigrationStatus status, FaultStatistics statistics)
    {
        HistogramBase latencies = statistics.Latencies(FaultCause.Demand);
        latencies.Add(statistics.Latencies(FaultCause.Arriving));
        return status with
        {
            DemandFaults = (ulong)latencies.TotalCount,
            FaultLatencyUs = FaultLatency.Of(latencies),
            FaultLatencyNowUs = FaultLatency.Of(_recent.Observe(latencies)),
        };
    }
}
