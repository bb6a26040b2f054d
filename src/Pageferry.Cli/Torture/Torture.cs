using System.Diagnostics;

namespace Pageferry.Cli;

/// <summary>Runs one plan after another.</summary>
internal static class Torture
{
    /// <summary>Runs.</summary>
    /// <param name="options">What the user asked for.</param>
    /// <param name="cancellation">Ends it and its processes.</param>
    /// <returns>What was found.</returns>
    internal static async Task<TortureReport> RunAsync(TortureOptions options, CancellationToken cancellation)
    {
        var results = new List<TortureResult>();
        var clock = Stopwatch.StartNew();
        foreach (int seed in Seeds(options))
        {
            if (clock.Elapsed.TotalMinutes >= options.Minutes)
            {
                break;
            }

            DirectoryInfo directory = Directory.CreateTempSubdirectory($"pageferry-torture-{Environment.ProcessId}-");
            try
            {
                using var run = new TortureRun(TorturePlan.Of(seed, options), options, directory.FullName);
                results.Add(await run.RunAsync(cancellation));
            }
            finally
            {
                directory.Delete(recursive: true);
            }

            TortureDisplay.Show(results.Count, results[^1], options);
        }

        return TortureReport.Of(options, results, clock.Elapsed);
    }

    /// <summary>A seed for each run: the first is the user's, so that any run can be the first, and each is the next scenario's turn.</summary>
    private static IEnumerable<int> Seeds(TortureOptions options)
    {
        var random = new Random(options.Seed);
        int turns = options.Scenarios.Count;
        int turn = options.Seed % turns;
        yield return options.Seed;
        for (int run = 1; run < (options.Count ?? int.MaxValue); run++)
        {
            turn = (turn + 1) % turns;
            int drawn = random.Next(int.MaxValue / 2);
            yield return drawn - (drawn % turns) + turn;
        }
    }
}
