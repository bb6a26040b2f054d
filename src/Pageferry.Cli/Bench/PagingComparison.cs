namespace Pageferry.Cli;

/// <summary>What <c>bench demand-paging --compare --json</c> writes. docs/cli.md explains each field.</summary>
/// <param name="Ok">True: every vCPU touched every page of its own and read what it was to hold, in every round.</param>
/// <param name="Kernel">The kernel's release.</param>
/// <param name="Settings">What was measured.</param>
/// <param name="Rounds">How often each delivery was measured, in turn.</param>
/// <param name="Deliveries">What each came to.</param>
/// <param name="Ratios">Each against each one before it.</param>
internal sealed record PagingComparison(
    bool Ok, string Kernel, PagingSettings Settings, int Rounds, IReadOnlyList<PagingMedian> Deliveries, IReadOnlyList<PagingRatio> Ratios)
{
    /// <summary>Compares measurements.</summary>
    /// <param name="rounds">In each round one report per delivery; at least one round.</param>
    internal static PagingComparison Of(IReadOnlyList<IReadOnlyList<PagingReport>> rounds)
    {
        PagingReport first = rounds[0][0];
        PagingMedian[] medians = [.. Enumerable.Range(0, rounds[0].Count).Select(i => PagingMedian.Of([.. rounds.Select(round => round[i])]))];
        return new PagingComparison(
            Ok: true,
            first.Kernel,
            first.Settings,
            rounds.Count,
            medians,
            [.. medians.SelectMany((median, i) => medians[..i].Select(other =>
                new PagingRatio(median.Delivery, other.Delivery, Math.Round(median.MedianUsPerFault / other.MedianUsPerFault, 3))))]);
    }
}
