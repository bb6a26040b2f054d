namespace Pageferry.Cli;

/// <summary>What one delivery came to in a comparison.</summary>
/// <param name="Delivery">How the vCPUs got their pages.</param>
/// <param name="UsPerFault">Of each round, microseconds of the total time for each page of a vCPU.</param>
/// <param name="MedianUsPerFault">Their median.</param>
/// <param name="MedianPagesPerSPerVcpu">The median of the pages that each vCPU touched in a second.</param>
internal sealed record PagingMedian(string Delivery, IReadOnlyList<double> UsPerFault, double MedianUsPerFault, double MedianPagesPerSPerVcpu)
{
    /// <summary>Sums up the rounds of a delivery.</summary>
    /// <param name="rounds">A report each; at least one.</param>
    internal static PagingMedian Of(IReadOnlyCollection<PagingReport> rounds) => new(
        rounds.First().Delivery,
        [.. rounds.Select(round => round.UsPerFault)],
        Math.Round(Median(rounds.Select(round => round.UsPerFault)), 3),
        Math.Round(Median(rounds.Select(round => round.PagesPerSPerVcpu))));

    private static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }
}
