using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A moment of a migration: a phase or a round began, or something was decided.</summary>
internal sealed record ReportMoment
{
    /// <summary>When, in milliseconds since the migration began.</summary>
    public required double AtMs { get; init; }

    /// <summary>The phase, as the status names it.</summary>
    public required string Phase { get; init; }

    /// <summary>At the source the round of pre-copy that had begun, at the destination the last one that was here; 0 before the first.</summary>
    public required int Round { get; init; }

    /// <summary>Pages that the destination did not have.</summary>
    public required long PagesRemaining { get; init; }

    /// <summary>Memory moved per second in the last round that was measured, in MiB; null before.</summary>
    public double? BandwidthMibPerS { get; init; }

    /// <summary>Memory that the guest made dirty per second in that round, in MiB; null before.</summary>
    public double? DirtyMibPerS { get; init; }

    /// <summary>Milliseconds that the guest would have stood still, had it stopped then; null before.</summary>
    public double? ExpectedDowntimeMs { get; init; }

    /// <summary>What was decided, and why; null if nothing was.</summary>
    public string? Decision { get; init; }

    /// <summary>Takes what is shown out of a moment.</summary>
    internal static ReportMoment Of(MigrationMoment moment)
    {
        MigrationProgress progress = moment.Progress;
        bool isMeasured = progress.BandwidthMibPerSecond > 0;
        return new ReportMoment
        {
            AtMs = Rounded(progress.Total.TotalMilliseconds),
            Phase = MigrationStatus.Of(progress).Phase,
            Round = progress.Round,
            PagesRemaining = progress.PagesRemaining,
            BandwidthMibPerS = isMeasured ? Rounded(progress.BandwidthMibPerSecond) : null,
            DirtyMibPerS = isMeasured ? Rounded(progress.DirtyMibPerSecond) : null,
            ExpectedDowntimeMs = isMeasured ? Rounded(progress.ExpectedDowntime.TotalMilliseconds) : null,
            Decision = moment.Decision,
        };
    }

    /// <summary>Rounds to what is worth keeping: microseconds of a time in milliseconds.</summary>
    internal static double Rounded(double value) => Math.Round(value, 3);
}
