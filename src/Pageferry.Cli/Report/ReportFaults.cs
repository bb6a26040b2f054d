using HdrHistogram;
using HdrHistogram.Iteration;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>The userfaults of one cause.</summary>
/// <param name="Cause"><c>demand</c>, <c>arriving</c>, <c>zero</c> or <c>present</c>.</param>
/// <param name="Count">How many there were.</param>
/// <param name="LatencyUs">How long they took, from the fault's message to the placed page.</param>
/// <param name="Histogram">The same, <see cref="BarsPerDecade"/> bars to a power of ten; bars without faults are left out.</param>
internal sealed record ReportFaults(string Cause, long Count, FaultLatency LatencyUs, IReadOnlyList<LatencyBar> Histogram)
{
    /// <summary>How finely latencies are told apart.</summary>
    internal const int BarsPerDecade = 10;

    private const double NanosecondsPerMicrosecond = 1000;

    /// <summary>Takes what is shown out of a histogram of nanoseconds, which is not empty.</summary>
    internal static ReportFaults Of(FaultCause cause, HistogramBase latencies)
    {
        var bars = new SortedDictionary<int, long>();
        foreach (HistogramIterationValue value in latencies.RecordedValues())
        {
            int bar = (int)Math.Floor(Math.Log10(value.ValueIteratedTo / NanosecondsPerMicrosecond) * BarsPerDecade);
            bars[bar] = bars.GetValueOrDefault(bar) + value.CountAddedInThisIterationStep;
        }

        return new ReportFaults(
            cause.ToString().ToLowerInvariant(),
            latencies.TotalCount,
            FaultLatency.Of(latencies)!,
            [.. bars.Select(bar => new LatencyBar(EdgeOf(bar.Key), EdgeOf(bar.Key + 1), bar.Value))]);
    }

    private static double EdgeOf(int bar) => Math.Round(Math.Pow(10, bar / (double)BarsPerDecade), 3);
}
