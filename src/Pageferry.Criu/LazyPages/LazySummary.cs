using HdrHistogram;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>What a lazy restore took: of all its processes together, those that they forked included.</summary>
public sealed class LazySummary
{
    private readonly HistogramBase?[] _latencies = new HistogramBase?[Enum.GetValues<FaultCause>().Length];

    internal LazySummary()
    {
    }

    /// <summary>How many processes there were, children that were forked meanwhile included.</summary>
    public int Processes { get; private set; }

    /// <summary>Pages that a process waited for.</summary>
    public long DemandPages { get; private set; }

    /// <summary>Pages that arrived before a process touched them.</summary>
    public long BackgroundPages { get; private set; }

    /// <summary>Pages that a process gave back.</summary>
    public long RemovedPages { get; private set; }

    /// <summary>How long processes waited, from the moment a fault was read to the moment its page was placed.</summary>
    /// <param name="cause">What the pages needed.</param>
    /// <returns>In nanoseconds; null if no fault had this cause.</returns>
    public HistogramBase? Latencies(FaultCause cause) => _latencies[(int)cause];

    internal void Add(FaultStatistics statistics)
    {
        Processes++;
        DemandPages += statistics.DemandPages;
        BackgroundPages += statistics.BackgroundPages;
        RemovedPages += statistics.RemovedPages;
        foreach (FaultCause cause in Enum.GetValues<FaultCause>().Where(cause => statistics.FaultsBy(cause) > 0))
        {
            HistogramBase own = statistics.Latencies(cause);
            if (_latencies[(int)cause] is { } all)
            {
                all.Add(own);
            }
            else
            {
                _latencies[(int)cause] = own;
            }
        }
    }
}
