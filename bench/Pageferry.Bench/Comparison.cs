using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>Runs two programs alternately, each printing one JSON object, and stores both sides' raw results with the ratio of the medians.</summary>
internal sealed class Comparison(string name, int rounds)
{
    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true };

    private static readonly string s_bench = Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, "../../../.."));

    private readonly JsonObject _result = new()
    {
        ["benchmark"] = name,
        ["rounds"] = rounds,
        ["machine"] = new JsonObject
        {
            ["kernel"] = File.ReadAllText("/proc/sys/kernel/osrelease").Trim(),
            ["cpu"] = File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("model name", StringComparison.Ordinal)).Split(": ")[1],
            ["cores"] = Environment.ProcessorCount,
            ["runtime"] = Environment.Version.ToString(),
        },
    };

    /// <summary>The command line of a benchmark of ours, in a process of its own.</summary>
    public static string[] Ours(params string[] arguments) => [Environment.ProcessPath!, .. arguments];

    /// <summary>The command line of a twin, compiled now with gcc -O2.</summary>
    public static string[] Twin(string source, params string[] arguments)
    {
        string folder = Directory.CreateDirectory(Path.Combine(Path.GetTempPath(), "pageferry-twins")).FullName;
        string program = Path.Combine(folder, source);
        Run(["gcc", "-O2", "-Wall", "-Wextra", "-pthread", "-o", program, Path.Combine(s_bench, "twins", $"{source}.c")]);
        return [program, .. arguments];
    }

    /// <summary>Runs a program to its end.</summary>
    /// <returns>What it printed.</returns>
    public static string Run(string[] command)
    {
        var start = new ProcessStartInfo(command[0], command[1..]) { UseShellExecute = false, RedirectStandardOutput = true };
        using Process process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{string.Join(' ', command)} ended with {process.ExitCode}.");
    }

    /// <summary>Alternates the two and adds their raw results and the ratio of the medians of one figure.</summary>
    /// <returns>Ours divided by the twin's.</returns>
    public double Alternate(string title, string[] ours, string[] twin, string figure)
    {
        var ourRuns = new JsonArray();
        var twinRuns = new JsonArray();
        for (int round = 0; round < rounds; round++)
        {
            ourRuns.Add(JsonNode.Parse(Run(ours)));
            twinRuns.Add(JsonNode.Parse(Run(twin)));
            Console.Error.Write('.');
        }

        Console.Error.WriteLine();
        double our = Median(ourRuns, figure);
        double other = Median(twinRuns, figure);
        _result[title] = new JsonObject
        {
            ["ours"] = ourRuns,
            ["twin"] = twinRuns,
            ["figure"] = figure,
            ["ours_median"] = our,
            ["twin_median"] = other,
            ["ratio"] = Math.Round(our / other, 3),
        };
        Console.WriteLine($"{name}, {title}: {figure} ours {our}, twin {other}, ratio {our / other:F3}");
        return our / other;
    }

    /// <summary>Adds a figure that has no twin.</summary>
    public void Add(string title, JsonNode value) => _result[title] = value;

    /// <summary>Stores the results beside the earlier ones.</summary>
    public void Store() => File.WriteAllText(Path.Combine(s_bench, "results", $"{name}.json"), _result.ToJsonString(s_indented) + "\n");

    private static double Median(JsonArray runs, string figure)
    {
        double[] values = [.. runs.Select(run => run![figure]!.GetValue<double>()).Order()];
        return (values[(values.Length - 1) / 2] + values[values.Length / 2]) / 2;
    }
}
