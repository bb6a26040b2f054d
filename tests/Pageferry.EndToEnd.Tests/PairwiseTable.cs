namespace Pageferry.EndToEnd.Tests;

/// <summary>Few rows in which each value of each factor meets each value of each other factor.</summary>
internal static class PairwiseTable
{
    private const int Candidates = 60;

    /// <summary>Makes the rows, always the same.</summary>
    /// <param name="factors">The values of each factor.</param>
    /// <param name="isPossible">Whether a row can be.</param>
    internal static List<string[]> Rows(IReadOnlyList<string[]> factors, Func<string[], bool> isPossible)
    {
        var random = new Random(1);
        HashSet<(int, int, int, int)> open = [.. Pairs(factors)];
        var rows = new List<string[]>();
        while (open.Count > 0)
        {
            (int a, int i, int b, int j) = open.Min();
            string[]? best = null;
            int most = 0;
            for (int candidate = 0; candidate < Candidates; candidate++)
            {
                string[] row = [.. factors.Select(values => values[random.Next(values.Length)])];
                (row[a], row[b]) = (factors[a][i], factors[b][j]);
                int covered = isPossible(row) ? PairsOf(factors, row).Count(open.Contains) : 0;
                (best, most) = covered > most ? (row, covered) : (best, most);
            }

            if (best is null)
            {
                // In no row that can be.
                _ = open.Remove((a, i, b, j));
                continue;
            }

            rows.Add(best);
            open.ExceptWith(PairsOf(factors, best));
        }

        return rows;
    }

    /// <summary>All pairs of values of two factors: which factor and which of its values, twice.</summary>
    internal static IEnumerable<(int FirstFactor, int First, int SecondFactor, int Second)> Pairs(IReadOnlyList<string[]> factors) =>
        from a in Enumerable.Range(0, factors.Count)
        from b in Enumerable.Range(a + 1, factors.Count - a - 1)
        from i in Enumerable.Range(0, factors[a].Length)
        from j in Enumerable.Range(0, factors[b].Length)
        select (a, i, b, j);

    private static IEnumerable<(int, int, int, int)> PairsOf(IReadOnlyList<string[]> factors, string[] row) =>
        from a in Enumerable.Range(0, factors.Count)
        from b in Enumerable.Range(a + 1, factors.Count - a - 1)
        select (a, Array.IndexOf(factors[a], row[a]), b, Array.IndexOf(factors[b], row[b]));
}
