using HdrHistogram;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What <c>bench demand-paging --json</c> writes. docs/cli.md explains each field.</summary>
/// <param name="Ok">True: every vCPU touched every page of its own and read what it was to hold.</param>
/// <param name="Kernel">The kernel's release.</param>
/// <param name="Delivery">How the vCPUs got their pages.</param>
/// <param name="Settings">What was measured.</param>
/// <param name="TotalMs">From the first vCPU's begin to the last one's end, in milliseconds.</param>
/// <param name="PagesPerSPerVcpu">Pages that each vCPU touched, by the total time.</param>
/// <param name="PagesPerS">The same of all vCPUs together.</param>
/// <param name="UsPerFault">Microseconds of the total time for each page of a vCPU.</param>
/// <param name="VcpuMs">How long each vCPU took, in milliseconds.</param>
/// <param name="Userfaults">Userfaults that were answered.</param>
/// <param name="LatencyUs">How long touches took, by the guest's clock.</param>
/// <param name="EngineLatencyUs">How long userfaults took from their message to the placed page; null without any.</param>
/// <param name="Histogram">The touches by how long they took.</param>
internal sealed record PagingReport(
    bool Ok,
    string Kernel,
    string Delivery,
    PagingSettings Settings,
    double TotalMs,
    double PagesPerSPerVcpu,
    double PagesPerS,
    double UsPerFault,
    IReadOnlyList<double> VcpuMs,
    long Userfaults,
    FaultLatency LatencyUs,
    FaultLatency? EngineLatencyUs,
    IReadOnlyList<LatencyBar> Histogram)
{
    private const double NanosecondsPerMicrosecond = 1000;

    /// <summary>Reports a measurement.</summary>
    /// <param name="options">What was measured.</param>
    /// <param name="result">What was found.</param>
    internal static PagingReport Of(PagingOptions options, PagingResult result)
    {
        double perVcpu = options.PagesPerVcpu / result.Total.TotalSeconds;
        return new PagingReport(
            Ok: true,
            File.ReadAllText("/proc/sys/kernel/osrelease").Trim(),
            PagingDeliveryWord.Of(options.Delivery),
            PagingSettings.Of(options),
            Math.Round(result.Total.TotalMilliseconds, 3),
            Math.Round(perVcpu),
            Math.Round(perVcpu * options.Vcpus),
            Math.Round(result.Total.TotalMicroseconds / options.PagesPerVcpu, 3),
            [.. result.OfVcpus.Select(took => Math.Round(took.TotalMilliseconds, 3))],
            result.Engines.Sum(engine => engine.Faults),
            result.Latencies.Percentiles(),
            EngineLatency(result.Engines),
            result.Latencies.Bars());
    }

    private static FaultLatency? EngineLatency(IReadOnlyList<FaultStatistics> engines)
    {
        if (engines.Count == 0)
        {
            return null;
        }

        HistogramBase all = engines[0].Latencies();
        foreach (FaultStatistics engine in engines.Skip(1))
        {
            all.Add(engine.Latencies());
        }

        return all.TotalCount == 0 ? null : new FaultLatency(At(50), At(90), At(99), At(99.9), all.GetMaxValue() / NanosecondsPerMicrosecond);

        double At(double percentile) => all.GetValueAtPercentile(percentile) / NanosecondsPerMicrosecond;
    }
}
