using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A migration over time: entry n of every list is of the same moment.</summary>
/// <param name="AtMs">When, in milliseconds since the migration began.</param>
/// <param name="Bytes">Bytes on the wire until then.</param>
/// <param name="PagesRemaining">Pages of the round, or of the rest after the switchover, that the destination did not have.</param>
/// <param name="PagesPrecopy">Pages with content that went before the switchover, until then.</param>
/// <param name="PagesDemand">Pages that went because the guest waited for them, until then.</param>
/// <param name="PagesBackground">Pages with content that went after the switchover before the guest asked, until then.</param>
/// <param name="PagesZero">Pages that are zero, until then.</param>
/// <param name="ThrottlePercent">The share of time that the vCPUs were kept from running.</param>
internal sealed record ReportSamples(
    IReadOnlyList<double> AtMs,
    IReadOnlyList<long> Bytes,
    IReadOnlyList<long> PagesRemaining,
    IReadOnlyList<long> PagesPrecopy,
    IReadOnlyList<long> PagesDemand,
    IReadOnlyList<long> PagesBackground,
    IReadOnlyList<long> PagesZero,
    IReadOnlyList<int> ThrottlePercent)
{
    /// <summary>Takes what is shown out of samples.</summary>
    internal static ReportSamples Of(IReadOnlyList<MigrationProgress> samples) => new(
        [.. samples.Select(sample => ReportMoment.Rounded(sample.Total.TotalMilliseconds))],
        [.. samples.Select(sample => sample.BytesSent)],
        [.. samples.Select(sample => sample.PagesRemaining)],
        [.. samples.Select(sample => sample.PagesPrecopy)],
        [.. samples.Select(sample => sample.PagesDemand)],
        [.. samples.Select(sample => sample.PagesBackground)],
        [.. samples.Select(sample => sample.PagesZero)],
        [.. samples.Select(sample => sample.ThrottlePercent)]);
}
