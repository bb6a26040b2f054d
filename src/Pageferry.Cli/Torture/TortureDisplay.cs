using System.Globalization;

namespace Pageferry.Cli;

/// <summary>Shows torture: a line for each run, what a failed one did, and the table at the end. Fits 80 columns.</summary>
internal static class TortureDisplay
{
    private const string Indent = "    ";
    private const string Header = "scenario         runs recov. served before rolled undist. lost wrong both  stall";

    /// <summary>Shows what came of a run.</summary>
    /// <param name="number">Its number, from 1.</param>
    /// <param name="result">What came of it.</param>
    /// <param name="options">What the user asked for.</param>
    internal static void Show(int number, TortureResult result, TortureOptions options)
    {
        string outcome = result.Outcome switch
        {
            TortureOutcome.Undisturbed => "moved before anything was done",
            TortureOutcome.Recovered => "recovered",
            TortureOutcome.RecoveredByCommand => "recovered, by another process for its source",
            TortureOutcome.FailedBefore => "failed before switchover, moved again",
            TortureOutcome.RolledBack => "rolled back, moved again",
            TortureOutcome.Lost => "LOST",
            TortureOutcome.WrongBytes => "WRONG BYTES",
            _ => "BOTH RUNNING",
        };
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{number,4}  seed {result.Plan.Seed,-10}  {ScenarioWord.Of(result.Plan.Scenario),-16}  {outcome}"));
        if (result.Error is null)
        {
            return;
        }

        var failure = TortureFailure.Of(result, options);
        foreach (string text in (string[])[failure.Error, $"guest: {failure.Guest}", .. failure.Plan.Select(line => $"plan: {line}"), .. failure.Events, $"again: {failure.Repeat}"])
        {
            foreach (string line in TextWrap.Lines(text, Indent + Indent, Indent))
            {
                Console.Error.WriteLine(line);
            }
        }
    }

    /// <summary>Shows the table.</summary>
    /// <param name="report">What was found.</param>
    internal static void Show(TortureReport report)
    {
        Console.Out.WriteLine(Header);
        foreach (TortureRow row in (TortureRow[])[.. report.Scenarios, report.Total])
        {
            Console.Out.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{row.Scenario,-16} {row.Runs,4} {row.Recovered,6} {row.RecoveredByCommand,6} {row.FailedBeforeSwitchover,6} {row.RolledBack,6} {row.Undisturbed,7} {row.Lost,4} {row.WrongBytes,5} {row.BothRunning,4} {row.LongestStallMs,6:F0}"));
        }

        Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"seed {report.Seed}, {report.Seconds:F0} s; {report.Total.Reconnects} times a link was lost after the switchover and found again"));
    }
}
