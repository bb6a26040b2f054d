using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>How long a guest under KVM stands still, by the size of its memory: <c>pageferry demo</c> as a user runs it.</summary>
internal static class Downtime
{
    private static readonly string[] s_sizes = ["64M", "256M", "1G", "4G"];

    /// <summary>Goes over the sizes round by round.</summary>
    public static int Measure(int rounds, string pageferry)
    {
        var comparison = new Comparison("downtime", rounds);
        var runs = s_sizes.ToDictionary(size => size, _ => new List<double>(), StringComparer.Ordinal);
        for (int round = 0; round < rounds; round++)
        {
            foreach (string size in s_sizes)
            {
                JsonNode report = JsonNode.Parse(Comparison.Run([pageferry, "demo", "--json", "--memory", size]))!;
                runs[size].Add(report["downtime_ms"]!.GetValue<double>());
                Console.Error.Write('.');
            }
        }

        Console.Error.WriteLine();
        double[] medians = [.. s_sizes.Select(size => Comparison.Median(runs[size]))];
        foreach (string size in s_sizes)
        {
            comparison.Add(size, new JsonObject
            {
                ["downtime_ms"] = new JsonArray([.. runs[size].Select(run => (JsonNode)JsonValue.Create(run))]),
                ["median"] = Comparison.Median(runs[size]),
            });
        }

        comparison.Add("largest_over_smallest_median", JsonValue.Create(Math.Round(medians.Max() / medians.Min(), 3)));
        comparison.Store();
        Console.WriteLine($"downtime in ms, medians: {string.Join(", ", s_sizes.Zip(medians, (size, median) => $"{size} {median:F2}"))}; flat within {medians.Max() / medians.Min():F2}x");
        return 0;
    }
}
