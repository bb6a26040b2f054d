using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using Pageferry.Linux;

namespace Pageferry.Bench;

/// <summary>Runs programs alternately, each printing one JSON object, and stores all raw results with the ratio of the medians.</summary>
internal sealed class Comparison(string name, int rounds)
{
    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true };

    /// <summary>The folder <c>bench</c> of the sources.</summary>
    public static string Folder { get; } = Path.GetFullPath(Path.Combine(SourceFolder(), ".."));

    /// <remarks>A native binary has no list of assemblies. <see cref="RuntimeFeature"/> says that code is not compiled as soon as a project may be published natively.</remarks>
    private readonly JsonObject _result = new()
    {
        ["benchmark"] = name,
        ["rounds"] = rounds,
        ["machine"] = new JsonObject
        {
            ["kernel"] = File.ReadAllText("/proc/sys/kernel/osrelease").Split('-')[0].Trim(),
            ["cpu"] = File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("model name", StringComparison.Ordinal)).Split(": ")[1],
            ["cores"] = Environment.ProcessorCount,
            ["runtime"] = $"{Environment.Version} {(AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES") is null ? "NativeAOT" : "JIT")}",
        },
    };

    /// <summary>How often each program runs.</summary>
    public int Rounds => rounds;

    /// <summary>Fields of what programs print that are not stored.</summary>
    public IReadOnlyList<string> Leave { get; init; } = [];

    /// <summary>The command line of a benchmark of ours, in a process of its own.</summary>
    public static string[] Ours(params string[] arguments) => [Environment.ProcessPath!, .. arguments];

    /// <summary>The command line of a twin, compiled now with gcc -O2.</summary>
    public static string[] Twin(string source, params string[] arguments) => Twin(source, arguments, []);

    /// <summary>The same, with libraries to link.</summary>
    public static string[] Twin(string source, string[] arguments, params string[] libraries)
    {
        string folder = Directory.CreateDirectory(Path.Combine(Path.GetTempPath(), "pageferry-twins")).FullName;
        string program = Path.Combine(folder, source);
        _ = Run(["gcc", "-O2", "-Wall", "-Wextra", "-pthread", "-o", program, Path.Combine(Folder, "twins", $"{source}.c"), .. libraries]);
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

    /// <summary>Alternates ours with its twins, round by round, and sets the median of one figure against the sum of the twins' medians.</summary>
    public void Alternate(string title, string figure, string[] ours, params string[][] twins) => Alternate(title, figure, populate: 0, ours, twins);

    /// <summary>The same, with so many bytes of this machine's memory populated and given back before every run.</summary>
    public void Alternate(string title, string figure, ulong populate, string[] ours, params string[][] twins)
    {
        string[][] programs = [ours, .. twins];
        JsonArray[] runs = [.. programs.Select(_ => new JsonArray())];
        string load = Load();
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < programs.Length; i++)
            {
                Populate(populate);
                runs[i].Add(Parse(Run(programs[i])));
            }

            Console.Error.Write('.');
        }

        Console.Error.WriteLine();
        double[] medians = [.. runs.Select(of => Median([.. of.Select(run => run![figure]!.GetValue<double>())]))];
        double twin = medians[1..].Sum();
        _result[title] = new JsonObject
        {
            ["programs"] = new JsonArray([.. programs.Select(program => (JsonNode)string.Join(' ', program.Select(Path.GetFileName)))]),
            ["load_before"] = load,
            ["figure"] = figure,
            ["ours_median"] = medians[0],
            ["twin_median"] = twin,
            ["ratio"] = Math.Round(medians[0] / twin, 3),
            ["ours"] = runs[0],
            ["twins"] = new JsonArray([.. runs.Skip(1)]),
        };
        Console.WriteLine($"{name}, {title}: {figure} ours {medians[0]}, twin {twin}, ratio {medians[0] / twin:F3}");
    }

    /// <summary>Adds a figure that has no twin.</summary>
    public void Add(string title, JsonNode value) => _result[title] = value;

    /// <summary>Stores the results in place of the earlier ones.</summary>
    public void Store() => File.WriteAllText(Path.Combine(Folder, "results", $"{name}.json"), _result.ToJsonString(s_indented) + "\n");

    /// <summary>Populates so many bytes of this machine's memory and gives them back.</summary>
    /// <remarks>
    /// A virtual machine's memory that is free for some seconds may be taken back by its hypervisor, and is slow when it is used again. A program
    /// that takes much new memory would measure that, not itself.
    /// </remarks>
    public static void Populate(ulong bytes)
    {
        if (bytes > 0)
        {
            using var memory = MappedRegion.MapAnonymous(bytes);
            memory.Advise(0, bytes, MemoryAdvice.NoHugePage);
            memory.Advise(0, bytes, MemoryAdvice.PopulateWrite);
        }
    }

    /// <summary>The middle value; of an even number of values the mean of the two in the middle.</summary>
    public static double Median(IReadOnlyCollection<double> values)
    {
        double[] sorted = [.. values.Order()];
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }

    private static string Load() => string.Join(' ', File.ReadAllText("/proc/loadavg").Split(' ')[..3]);

    private JsonNode Parse(string output)
    {
        JsonNode parsed = JsonNode.Parse(output)!;
        foreach (string field in Leave)
        {
            _ = parsed.AsObject().Remove(field);
        }

        return parsed;
    }

    private static string SourceFolder([CallerFilePath] string file = "") => Path.GetDirectoryName(file)!;
}
