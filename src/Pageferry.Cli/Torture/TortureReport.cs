namespace Pageferry.Cli;

/// <summary>What torture found: the object that <c>torture --json</c> writes. docs/cli.md explains each field.</summary>
/// <param name="Ok">Whether nothing was found that must not be.</param>
/// <param name="Seed">What all plans followed from.</param>
/// <param name="MemoryBytes">The guests' memory.</param>
/// <param name="Seconds">How long it took.</param>
/// <param name="Total">All runs.</param>
/// <param name="Scenarios">The runs of each scenario.</param>
/// <param name="Failures">The runs that found something.</param>
internal sealed record TortureReport(
    bool Ok, int Seed, ulong MemoryBytes, double Seconds, TortureRow Total, IReadOnlyList<TortureRow> Scenarios, IReadOnlyList<TortureFailure> Failures)
{
    /// <summary>Sums results up.</summary>
    /// <param name="options">What the user asked for.</param>
    /// <param name="results">What came of each run.</param>
    /// <param name="took">How long it took.</param>
    internal static TortureReport Of(TortureOptions options, IReadOnlyList<TortureResult> results, TimeSpan took)
    {
        TortureFailure[] failures = [.. results.Where(result => result.Error is not null).Select(result => TortureFailure.Of(result, options))];
        return new TortureReport(
            failures.Length == 0,
            options.Seed,
            options.Memory.Bytes,
            Math.Round(took.TotalSeconds, 1),
            TortureRow.Of("all", results),
            [.. options.Scenarios
                .Select(scenario => TortureRow.Of(ScenarioWord.Of(scenario), [.. results.Where(result => result.Plan.Scenario == scenario)]))
                .Where(row => row.Runs > 0)],
            failures);
    }
}
