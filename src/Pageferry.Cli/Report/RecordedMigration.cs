using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>What a report has from the process that took part in the migration.</summary>
/// <param name="ProtocolVersion"><inheritdoc cref="MigrationReport.ProtocolVersion" path="/summary/node()"/></param>
/// <param name="Samples"><inheritdoc cref="MigrationReport.Samples" path="/summary/node()"/></param>
/// <param name="Moments"><inheritdoc cref="MigrationReport.Moments" path="/summary/node()"/></param>
/// <param name="MomentsLeftOut"><inheritdoc cref="MigrationReport.MomentsLeftOut" path="/summary/node()"/></param>
/// <param name="Faults"><inheritdoc cref="MigrationReport.Faults" path="/summary/node()"/></param>
/// <param name="Map"><inheritdoc cref="MigrationReport.Map" path="/summary/node()"/></param>
internal sealed record RecordedMigration(
    int? ProtocolVersion, ReportSamples Samples, IReadOnlyList<ReportMoment> Moments, int? MomentsLeftOut, IReadOnlyList<ReportFaults> Faults, ReportMap? Map)
{
    /// <summary>The most bytes that it has as JSON.</summary>
    internal const int MostBytes = 16 << 20;

    /// <summary>Takes what was recorded.</summary>
    /// <param name="recording">The recording, which has ended.</param>
    /// <param name="faults">The faults that this side has answered; null at the source.</param>
    internal static RecordedMigration Of(MigrationRecording recording, FaultStatistics? faults) => new(
        recording.Moments is [.., { Progress.ProtocolVersion: > 0 and var version }] ? version : null,
        ReportSamples.Of(recording.Samples),
        [.. recording.Moments.Select(ReportMoment.Of)],
        recording.MomentsLeftOut > 0 ? recording.MomentsLeftOut : null,
        faults is null ? [] : FaultsOf(faults),
        recording.Map is { } map && recording.Samples.Count > 0 ? ReportMap.Of(map) : null);

    private static IReadOnlyList<ReportFaults> FaultsOf(FaultStatistics statistics) =>
        [.. Enum.GetValues<FaultCause>().Where(cause => statistics.FaultsBy(cause) > 0).Select(cause => ReportFaults.Of(cause, statistics.Latencies(cause)))];
}
