using System.Diagnostics.Metrics;
using Microsoft.Extensions.Logging;

namespace Pageferry.Memory;

/// <summary>
/// Reports userfaults that wait longer than they should: a stall is the only failure that a guest may see, and nobody should have to look for it. Logs each
/// stalled page once, and publishes the age of the oldest userfault as <c>pageferry.faults.oldest</c>.
/// </summary>
public sealed class StallWatch : IDisposable
{
    private const int LooksPerWarning = 2;

    /// <summary>A timer takes no more than 49 days, and to look too often does no harm.</summary>
    private static readonly TimeSpan s_longestInterval = TimeSpan.FromHours(1);

    private readonly FaultEngine _engine;
    private readonly TimeSpan _warning;
    private readonly Func<string?> _waitsFor;
    private readonly ILogger _logger;
    private readonly Meter _meter = new("Pageferry.Memory");
    private readonly Timer _timer;
    private ulong? _told;

    /// <summary>Watches.</summary>
    /// <param name="engine">The engine whose faults are watched.</param>
    /// <param name="warning">How long a fault may wait; more than zero.</param>
    /// <param name="waitsFor">Tells what the engine's page source waits for itself, for a reader; null for nothing that it knows of.</param>
    /// <param name="logger">Hears of stalls.</param>
    public StallWatch(FaultEngine engine, TimeSpan warning, Func<string?> waitsFor, ILogger logger)
    {
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(warning, TimeSpan.Zero);
        _engine = engine;
        _warning = warning;
        _waitsFor = waitsFor;
        _logger = logger;
        _ = _meter.CreateObservableGauge("pageferry.faults.oldest", () => _engine.OldestFault?.Age.TotalSeconds ?? 0, "s", "How long the oldest userfault has waited");
        TimeSpan interval = TimeSpan.FromTicks(Math.Clamp(warning.Ticks / LooksPerWarning, TimeSpan.TicksPerMillisecond, s_longestInterval.Ticks));
        _timer = new Timer(_ => Look(), null, interval, interval);
    }

    /// <summary>The stall that is now; null if no fault has waited for too long.</summary>
    public WaitingFault? Stall => _engine.OldestFault is { } oldest && oldest.Age >= _warning ? oldest : null;

    /// <summary>Watches no more.</summary>
    public void Dispose()
    {
        _timer.Dispose();
        _meter.Dispose();
    }

    private void Look()
    {
        WaitingFault? stall = Stall;
        if (stall is { } fault && _told != fault.Gpa)
        {
            EngineLog.Stalled(_logger, fault.Gpa, fault.Age.TotalSeconds, fault.Cause == FaultCause.Demand ? "was asked for" : "is on its way", _waitsFor() ?? "an answer");
        }

        _told = stall?.Gpa;
    }
}
