using System.Net;
using System.Net.Sockets;
using HdrHistogram;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>A place where a guest can arrive in this process.</summary>
internal sealed class Arrival : IDisposable
{
    private readonly MigrationDestination _destination;
    private readonly RecentLatencies _recent = new();
    private readonly ArrivalOptions _options;
    private readonly ILogger _logger;
    private StallWatch? _stalls;

    private Arrival(MigrationDestination destination, ArrivalOptions options, ILogger logger)
    {
        _logger = logger;
        _destination = destination;
        _options = options;
    }

    /// <summary>Where it listens.</summary>
    internal IPEndPoint Endpoint => _destination.EndPoint;

    /// <summary>Whether a guest can still be sent here.</summary>
    internal bool IsListening { get; private set; } = true;

    /// <summary>How far the guest's arrival is; null while none is on its way.</summary>
    internal MigrationStatus? Status
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
                Stall = _stalls?.Stall is { } stall ? StallStatus.Of(stall) : null,
                Report = _options.Report?.WrittenTo,
                ReportError = _options.Report?.Error,
            };
            return _destination.Engine is { } engine ? WithFaults(status, engine.Statistics) : status;
        }
    }

    /// <summary>Listens.</summary>
    /// <param name="listen">Where.</param>
    /// <param name="options">How to take a guest in.</param>
    /// <param name="logger">Hears of sources that were turned away.</param>
    /// <returns>The place.</returns>
    /// <exception cref="CommandException">It can't listen there.</exception>
    internal static Arrival Listen(NetworkEndpoint listen, ArrivalOptions options, ILogger logger)
    {
        IPEndPoint local = listen.ToLocal(onlyLoopback: options.Security is null && !options.InsecureNetwork);
        try
        {
            var destination = new MigrationDestination(
                local, layout => Prepare(layout, options, logger), logger, security: options.Security, insecureNetwork: options.InsecureNetwork)
            {
                IsRecorded = options.Report is not null,
                ReconnectFor = options.ReconnectFor,
                LinkTimeout = options.LinkTimeout,
            };
            return new Arrival(destination, options, logger);
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

    /// <summary>Takes one guest in, or goes on with one whose source was given up.</summary>
    /// <param name="arrived">Called when the guest runs here and its memory is still arriving.</param>
    /// <param name="turnedAway">Called with the reason when a guest did not come: another is waited for.</param>
    /// <param name="fenced">Called when the source has taken the guest back, and it was stopped here.</param>
    /// <returns>Completes when all its memory is here; fails with <see cref="MigrationException"/> when the link is lost before.</returns>
    internal Task ReceiveAsync(Action<ArrivingGuest> arrived, Action<string> turnedAway, Action fenced) => Task.Factory.StartNew(
        () =>
        {
            _destination.TurnedAway = turnedAway;
            _destination.Fenced = fenced;
            _destination.Receive(guest =>
            {
                _stalls = new StallWatch(guest.Engine, _options.StallWarning, () => _destination.Progress.WaitsFor, _logger);
                arrived((ArrivingGuest)guest);
            });

            // One process, one guest: whoever comes later is told that nobody listens. Not after a failure: its source may come back.
            IsListening = false;
            Dispose();
        },
        CancellationToken.None,
        TaskCreationOptions.LongRunning,
        TaskScheduler.Default);

    /// <summary>Takes the guest out: it is stopped, and never runs here again.</summary>
    /// <returns>What is here of it, beside its memory.</returns>
    /// <exception cref="InvalidOperationException">Its link is there, or all of it is here.</exception>
    internal GuestHalf Export() => _destination.Export();

    /// <summary>Writes the report of what came last, if one is wanted.</summary>
    /// <param name="status">How the guest is now.</param>
    /// <param name="guest">The guest's id; empty if none came.</param>
    /// <param name="error">Why it failed; null if it didn't.</param>
    /// <returns>Where it is, or why it isn't, for a reader; null if none is wanted.</returns>
    internal string? WriteReport(VmStatus status, Guid guest, string? error) => _destination.Recording is { } recording
        ? _options.Report?.Write(() => MigrationReport.Of(status, guest, recording, error) with
        {
            Faults = _destination.Engine is { } engine ? MigrationReport.FaultsOf(engine.Statistics) : [],
        })
        : null;

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
        return new ArrivingGuest(layout.GuestId, machine, machine.Engine);
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
