using System.Net;
using System.Net.Sockets;
using HdrHistogram;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>A place where a guest can arrive in this process.</summary>
internal sealed class Arrival
{
    private const double NanosecondsPerMicrosecond = 1000;

    private readonly MigrationDestination _destination;

    private Arrival(MigrationDestination destination) => _destination = destination;

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

            MigrationStatus status = MigrationStatus.Of(progress) with { Role = "destination" };
            return _destination.Engine is { } engine ? WithFaults(status, engine.Statistics) : status;
        }
    }

    /// <summary>Listens.</summary>
    /// <param name="listen">Where.</param>
    /// <param name="options">How to take a guest in.</param>
    /// <param name="logger">Hears of sources that were turned away.</param>
    /// <returns>The place.</returns>
    /// <exception cref="CommandException">It can't listen there.</exception>
    internal static Arrival Listen(IPEndPoint listen, ArrivalOptions options, ILogger logger)
    {
        try
        {
            return new Arrival(new MigrationDestination(listen, layout => Prepare(layout, options, logger), logger));
        }
        catch (SocketException e)
        {
            throw new CommandException(
                $"Could not listen on {listen}: {e.Message}{(e.SocketErrorCode == SocketError.AddressAlreadyInUse ? " (EADDRINUSE)" : string.Empty)}. Choose another port, or 0 to let the kernel pick one.");
        }
    }

    /// <summary>Takes one guest in.</summary>
    /// <param name="arrived">Called when the guest runs here and its memory is still arriving.</param>
    /// <returns>Completes when all its memory is here; fails with <see cref="MigrationException"/> when the link is lost before.</returns>
    internal Task ReceiveAsync(Action<ArrivingGuest> arrived) => Task.Factory.StartNew(
        () =>
        {
            try
            {
                _destination.Receive(guest => arrived((ArrivingGuest)guest));
            }
            finally
            {
                // One process, one guest: whoever comes later is told that nobody listens.
                IsListening = false;
                _destination.Dispose();
            }
        },
        CancellationToken.None,
        TaskCreationOptions.LongRunning,
        TaskScheduler.Default);

    private static ArrivingGuest Prepare(MigrationLayout layout, ArrivalOptions options, ILogger logger)
    {
        var kind = MachineKind.Parse(layout.MachineKind);
        IMachine machine = MachineFactory.CreateEmpty(kind, MachineMemory.Create(layout.Regions, options.Backing ?? layout.Backing), options.DirtyTracking);
        machine.Engine = new FaultEngine(machine.Memory, logger, options.Delivery);
        return new ArrivingGuest(layout.GuestId, machine, machine.Engine);
    }

    // A fault waits for the source when its page has to be asked for, and when its page is on its way already.
    private static MigrationStatus WithFaults(MigrationStatus status, FaultStatistics statistics)
    {
        HistogramBase latencies = statistics.Latencies(FaultCause.Demand);
        latencies.Add(statistics.Latencies(FaultCause.Arriving));
        return status with
        {
            DemandFaults = (ulong)latencies.TotalCount,
            FaultLatencyUs = latencies.TotalCount == 0 ? null : new FaultLatency(
                At(50), At(90), At(99), At(99.9), latencies.GetMaxValue() / NanosecondsPerMicrosecond),
        };

        double At(double percentile) => latencies.GetValueAtPercentile(percentile) / NanosecondsPerMicrosecond;
    }
}
