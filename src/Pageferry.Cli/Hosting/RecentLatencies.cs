using HdrHistogram;
using HdrHistogram.Iteration;

namespace Pageferry.Cli;

/// <summary>What was added to latencies of late: in the last second in which somebody looked.</summary>
internal sealed class RecentLatencies
{
    private static readonly TimeSpan s_window = TimeSpan.FromSeconds(1);

    private readonly Lock _lock = new();
    private readonly TimeProvider _clock = TimeProvider.System;
    private HistogramBase? _before;
    private HistogramBase? _recent;
    private long _at;

    /// <summary>Looks.</summary>
    /// <param name="all">All latencies since the beginning.</param>
    /// <returns>The recent ones.</returns>
    internal HistogramBase Observe(HistogramBase all)
    {
        lock (_lock)
        {
            if (_recent is null || _clock.GetElapsedTime(_at) >= s_window)
            {
                _recent = _before is null ? all : Since(_before, all);
                _before = all;
                _at = _clock.GetTimestamp();
            }

            return _recent;
        }
    }

    private static HistogramBase Since(HistogramBase before, HistogramBase all)
    {
        HistogramBase added = all.Copy();
        added.Reset();
        foreach (HistogramIterationValue value in all.RecordedValues())
        {
            added.RecordValueWithCount(value.ValueIteratedTo, value.CountAtValueIteratedTo - before.GetCountAtValue(value.ValueIteratedTo));
        }

        return added;
    }
}
