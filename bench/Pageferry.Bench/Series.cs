using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>The results of one program's runs.</summary>
internal sealed class Series
{
    private readonly List<JsonNode> _runs = [];

    /// <summary>Adds a run.</summary>
    public void Add(JsonNode run) => _runs.Add(run);

    /// <summary>The median of a figure.</summary>
    /// <param name="figure">Its name; after a slash that within an object.</param>
    public double Median(string figure) => Comparison.Median(Values(figure));

    /// <summary>The greatest value of a figure.</summary>
    public double Most(string figure) => Values(figure).Max();

    /// <summary>In how many runs a figure is as it should be.</summary>
    public int Count(string figure, Func<double, bool> isGood) => Values(figure).Count(isGood);

    /// <summary>All runs.</summary>
    public JsonArray ToJson() => [.. _runs];

    private double[] Values(string figure) => [.. _runs.Select(run => figure.Split('/').Aggregate(run, (node, name) => node[name]!).GetValue<double>())];
}
