using System.Globalization;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>The figures of both sides, their ratios and what they are to reach.</summary>
internal sealed class ComparisonTable
{
    private readonly List<(string Figure, double Ours, double Theirs, string Unit, double Ratio, string Goal, bool? IsReached)> _rows = [];

    /// <summary>Adds a row.</summary>
    /// <param name="figure">What it is.</param>
    /// <param name="ours">Pageferry's.</param>
    /// <param name="theirs">What stands beside it.</param>
    /// <param name="unit">What the ratio is of.</param>
    /// <param name="ratio">The ratio.</param>
    /// <param name="atLeast">What it is to reach; null if there is no such goal.</param>
    /// <param name="atMost">What it is not to exceed; null if there is no such goal.</param>
    public void Add(string figure, double ours, double theirs, string unit, double ratio, double? atLeast = null, double? atMost = null)
    {
        string goal = atLeast is { } least ? $"≥ {Text(least)}" : atMost is { } most ? $"≤ {Text(most)}" : string.Empty;
        bool? isReached = atLeast is null && atMost is null ? null : (atLeast is null || ratio >= atLeast) && (atMost is null || ratio <= atMost);
        _rows.Add((figure, ours, theirs, unit, ratio, goal, isReached));
    }

    /// <summary>Writes it as Markdown.</summary>
    public void Print(TextWriter output)
    {
        output.WriteLine("| figure | Pageferry | beside it | ratio | goal | |");
        output.WriteLine("| --- | --- | --- | --- | --- | --- |");
        foreach (var row in _rows)
        {
            output.WriteLine($"| {row.Figure} | {Text(row.Ours)} | {Text(row.Theirs)} | {Text(row.Ratio)} {row.Unit} | {row.Goal} | {(row.IsReached is { } reached ? reached ? "reached" : "not reached" : "")} |");
        }
    }

    /// <summary>For the results.</summary>
    public JsonArray ToJson() =>
    [
        .. _rows.Select(row => (JsonNode)new JsonObject
        {
            ["figure"] = row.Figure,
            ["pageferry"] = row.Ours,
            ["beside_it"] = row.Theirs,
            ["ratio"] = Math.Round(row.Ratio, 3),
            ["ratio_is"] = row.Unit,
            ["goal"] = row.Goal,
            ["reached"] = row.IsReached,
        }),
    ];

    private static string Text(double value) => value.ToString(value >= 100 ? "N0" : value >= 10 ? "N1" : "N2", CultureInfo.InvariantCulture);
}
