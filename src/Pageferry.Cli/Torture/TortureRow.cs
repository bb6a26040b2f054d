namespace Pageferry.Cli;

/// <summary>What came of all runs of a scenario. docs/cli.md explains each field.</summary>
/// <param name="Scenario">Its word.</param>
/// <param name="Runs">All.</param>
/// <param name="Recovered">The guest moved in spite of what was done.</param>
/// <param name="RecoveredByCommand">The source's process was gone, and another one served the guest's memory on by command.</param>
/// <param name="FailedBeforeSwitchover">The guest went on at the source, and moved by another migration.</param>
/// <param name="RolledBack">The destination was gone; the guest went back to the switchover by command, and moved by another migration.</param>
/// <param name="Undisturbed">The guest had moved before anything was done.</param>
/// <param name="Lost">The guest runs nowhere, lacks pages, or can't be moved any more.</param>
/// <param name="WrongBytes">The guest read what nobody wrote.</param>
/// <param name="BothRunning">The guest ran on both sides.</param>
/// <param name="Reconnects">How often a link was lost after the switchover and found again.</param>
/// <param name="LongestStallMs">The longest that a guest stood still, in milliseconds.</param>
internal sealed record TortureRow(
    string Scenario, int Runs, int Recovered, int RecoveredByCommand, int FailedBeforeSwitchover, int RolledBack, int Undisturbed, int Lost, int WrongBytes, int BothRunning, int Reconnects, double LongestStallMs)
{
    /// <summary>Sums results up.</summary>
    /// <param name="scenario">What to call them.</param>
    /// <param name="results">The results.</param>
    internal static TortureRow Of(string scenario, IReadOnlyCollection<TortureResult> results)
    {
        return new TortureRow(
            scenario,
            results.Count,
            Count(TortureOutcome.Recovered),
            Count(TortureOutcome.RecoveredByCommand),
            Count(TortureOutcome.FailedBefore),
            Count(TortureOutcome.RolledBack),
            Count(TortureOutcome.Undisturbed),
            Count(TortureOutcome.Lost),
            Count(TortureOutcome.WrongBytes),
            Count(TortureOutcome.BothRunning),
            results.Sum(result => result.Reconnects),
            results.Select(result => result.LongestStallMs).DefaultIfEmpty().Max());

        int Count(TortureOutcome outcome) => results.Count(result => result.Outcome == outcome);
    }
}
