namespace Pageferry.Cli;

/// <summary>A stretch of a migration: a phase, or a round of pre-copy.</summary>
/// <param name="FromMs">Its begin, in milliseconds since the migration began.</param>
/// <param name="ToMs">Its end.</param>
/// <param name="Phase">The phase, as the status names it; or <see cref="Discarding"/>.</param>
/// <param name="Round">The round of pre-copy; 0 in other phases.</param>
internal readonly record struct ReportSpan(double FromMs, double ToMs, string Phase, int Round)
{
    /// <summary>At the source the time between the last round and the switchover, in which the destination discards what is out of date.</summary>
    internal const string Discarding = "discarding";

    /// <summary>How long it took.</summary>
    internal double Ms => ToMs - FromMs;

    /// <summary>Its name for a reader.</summary>
    internal string Name => Round > 0 ? $"round {Round}" : Phase switch
    {
        "pre_copy" => "pre-copy",
        "switching_over" => "switchover",
        "post_copy" => "post-copy",
        _ => Phase,
    };

    /// <summary>Divides a migration into its stretches, without those that took no time.</summary>
    internal static IReadOnlyList<ReportSpan> Of(MigrationReport report)
    {
        double end = report.Samples.AtMs is [.., var last] ? last : 0;
        bool isSource = report.Status.Migration?.Role == "source";
        var spans = new List<ReportSpan>();
        if (report.Moments is [{ AtMs: > 0 } first, ..] && first.Phase != "preparing")
        {
            spans.Add(new ReportSpan(0, first.AtMs, "preparing", 0));
        }

        for (int i = 0; i < report.Moments.Count; i++)
        {
            ReportMoment moment = report.Moments[i];

            // A destination counts the rounds that are here.
            bool isDecided = isSource && moment is { Decision: not null, Phase: "pre_copy" };
            int round = moment.Phase == "pre_copy" && !isDecided ? moment.Round + (isSource ? 0 : 1) : 0;
            double until = i + 1 < report.Moments.Count ? report.Moments[i + 1].AtMs : Math.Max(end, moment.AtMs);
            var span = new ReportSpan(moment.AtMs, until, isDecided ? Discarding : moment.Phase, round);
            if (spans is [.., var before] && before.Phase == span.Phase && before.Round == span.Round)
            {
                spans[^1] = before with { ToMs = until };
            }
            else if (span.Ms > 0 && moment.Phase is "preparing" or "pre_copy" or "switching_over" or "post_copy")
            {
                spans.Add(span);
            }
        }

        return spans;
    }
}
