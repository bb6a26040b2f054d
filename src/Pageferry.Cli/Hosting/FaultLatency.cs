using HdrHistogram;

namespace Pageferry.Cli;

/// <summary>Percentiles of fault latency in microseconds.</summary>
/// <param name="P50">Half of the faults took at most this long.</param>
/// <param name="P90">90 % took at most this long.</param>
/// <param name="P99">99 % took at most this long.</param>
/// <param name="P999">99.9 % took at most this long.</param>
/// <param name="Max">The longest.</param>
internal sealed record FaultLatency(double P50, double P90, double P99, double P999, double Max)
{
    private const double NanosecondsPerMicrosecond = 1000;

    /// <summary>Those of a histogram.</summary>
    /// <param name="latencies">In nanoseconds.</param>
    /// <returns>The percentiles; null without faults.</returns>
    internal static FaultLatency? Of(HistogramBase latencies)
    {
        return latencies.TotalCount == 0 ? null : new FaultLatency(At(50), At(90), At(99), At(99.9), latencies.GetMaxValue() / NanosecondsPerMicrosecond);

        double At(double percentile) => latencies.GetValueAtPercentile(percentile) / NanosecondsPerMicrosecond;
    }
}
