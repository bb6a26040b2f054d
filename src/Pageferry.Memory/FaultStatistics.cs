using System.Diagnostics;
using System.Diagnostics.Metrics;
using HdrHistogram;

namespace Pageferry.Memory;

/// <summary>
/// What a fault engine did and how long the guest waited. Read from any thread; recording neither allocates nor locks.
/// </summary>
/// <remarks>
/// A fault's latency is the time from the moment its message was read from the userfaultfd to the moment its page was placed and its
/// waiters woken. What the kernel needs before and after is not in it. The same counters are published by the meter
/// <c>Pageferry.Memory</c>.
/// </remarks>
public sealed class FaultStatistics : IDisposable
{
    /// <summary>The longest latency told apart, in nanoseconds: 100 s.</summary>
    private const long LongestNanoseconds = 100_000_000_000;

    /// <summary>Two digits: latencies are told within 1 %, in 30 KiB per cause.</summary>
    private const int Digits = 2;

    private static readonly double s_nanosecondsPerTick = 1e9 / Stopwatch.Frequency;

    private readonly Meter _meter = new("Pageferry.Memory");
    private readonly LongConcurrentHistogram[] _latencies = new LongConcurrentHistogram[Enum.GetValues<FaultCause>().Length];
    private long _demandPages;
    private long _backgroundPages;
    private long _zeroPages;
    private long _removedPages;
    private long _retries;
    private long _unplaceable;
    private long _unlocated;

    /// <summary>Makes statistics with all counters at zero.</summary>
    internal FaultStatistics()
    {
        for (int i = 0; i < _latencies.Length; i++)
        {
            _latencies[i] = new LongConcurrentHistogram(1, LongestNanoseconds, Digits);
        }

        Publish("pageferry.pages.demand", () => DemandPages, "Pages that arrived because the guest waited for them");
        Publish("pageferry.pages.background", () => BackgroundPages, "Pages that arrived before the guest touched them");
        Publish("pageferry.pages.zero", () => ZeroPages, "Pages known to be zero");
        Publish("pageferry.pages.removed", () => RemovedPages, "Pages removed by madvise");
        Publish("pageferry.placements.retried", () => Retries, "Placements that had to wait for an event to be read");
        Publish("pageferry.faults.unlocated", () => Unlocated, "Faults that came as exits and whose address was not found");
        Publish("pageferry.faults.unplaceable", () => Unplaceable, "Faults on pages whose content is gone");
    }

    /// <summary>Pages that arrived with the guest waiting for them.</summary>
    public long DemandPages => Volatile.Read(ref _demandPages);

    /// <summary>Pages that arrived before the guest touched them.</summary>
    public long BackgroundPages => Volatile.Read(ref _backgroundPages);

    /// <summary>Pages that are zero and had no content to send.</summary>
    public long ZeroPages => Volatile.Read(ref _zeroPages);

    /// <summary>Pages whose removal (<c>UFFD_EVENT_REMOVE</c>) was seen.</summary>
    public long RemovedPages => Volatile.Read(ref _removedPages);

    /// <summary>Placements that the kernel put off with EAGAIN because an event was unread.</summary>
    public long Retries => Volatile.Read(ref _retries);

    /// <summary>Faults on a page that was whole and has lost its content behind the engine's back: its reader stalls.</summary>
    public long Unplaceable => Volatile.Read(ref _unplaceable);

    /// <summary>Faults that came as exits, whose address was not found, so that they were taken by the queue.</summary>
    public long Unlocated => Volatile.Read(ref _unlocated);

    /// <summary>Faults of all causes whose latency was recorded.</summary>
    public long Faults => _latencies.Sum(latencies => latencies.TotalCount);

    /// <summary>Faults of one cause whose latency was recorded.</summary>
    /// <param name="cause">The cause.</param>
    /// <returns>How many.</returns>
    public long FaultsBy(FaultCause cause) => _latencies[(int)cause].TotalCount;

    /// <summary>The latencies of one cause.</summary>
    /// <param name="cause">The cause.</param>
    /// <returns>A copy: its percentiles and maximum in nanoseconds.</returns>
    public HistogramBase Latencies(FaultCause cause) => _latencies[(int)cause].Copy();

    /// <summary>The latencies of all causes together.</summary>
    /// <returns>A copy: its percentiles and maximum in nanoseconds.</returns>
    public HistogramBase Latencies()
    {
        HistogramBase all = Latencies(FaultCause.Demand);
        for (int i = 1; i < _latencies.Length; i++)
        {
            all.Add(_latencies[i]);
        }

        return all;
    }

    /// <summary>Unpublishes the meter.</summary>
    public void Dispose() => _meter.Dispose();

    internal void RecordLatency(FaultCause cause, long ticks)
    {
        long nanoseconds = (long)(ticks * s_nanosecondsPerTick);
        _latencies[(int)cause].RecordValue(Math.Clamp(nanoseconds, 1, LongestNanoseconds));
    }

    internal void AddArrived(long demand, long background)
    {
        _ = Interlocked.Add(ref _demandPages, demand);
        _ = Interlocked.Add(ref _backgroundPages, background);
    }

    internal void AddZero(long pages) => Interlocked.Add(ref _zeroPages, pages);

    internal void AddRemoved(long pages) => Interlocked.Add(ref _removedPages, pages);

    internal void AddRetry() => Interlocked.Increment(ref _retries);

    internal void AddUnlocated() => Interlocked.Increment(ref _unlocated);

    internal void AddUnplaceable() => Interlocked.Increment(ref _unplaceable);

    private void Publish(string name, Func<long> read, string description) => _meter.CreateObservableCounter(name, read, "{page}", description);
}
