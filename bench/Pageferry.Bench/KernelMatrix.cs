using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>What <c>pageferry</c> did on each kernel that <c>eng/kernel-matrix.sh</c> booted: from the steps' output to one file, and from it a table.</summary>
internal static class KernelMatrix
{
    internal const string Pass = "pass";
    internal const string Fail = "fail";
    internal const string Unsupported = "unsupported";

    internal const string Conformance = "conformance";
    internal const string Demo = "demo";
    internal const string Bench = "bench";
    internal const string Tests = "tests";

    /// <summary>The exit status of a step that its time limit ended: 128 and SIGKILL.</summary>
    private const int Killed = 137;

    /// <summary>The exit status of a command that refuses what it is asked for before it tries.</summary>
    private const int Refused = 2;

    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true };
    private static readonly string[] s_demoFigures = ["guest", "dirty_tracking", "downtime_ms", "total_ms", "demand_faults", "fault_latency_us", "pages_precopy", "pages_checked", "pages_wrong"];
    private static readonly string[] s_benchFigures = ["deliveries", "ratios"];

    // From the oldest kernel to the newest.
    private static readonly string[] s_suites = ["bookworm", "trixie", "sid"];

    /// <summary>Adds the results of the kernels that were run to a file.</summary>
    /// <param name="results">A directory with one of each kernel: its steps by number.</param>
    /// <param name="output">The file; kernels in it that were not run stay.</param>
    /// <param name="document">Where the table goes between its two marks; null for nowhere.</param>
    /// <returns>1 if something failed, else 0.</returns>
    internal static int Collect(string results, string output, string? document)
    {
        JsonObject before = File.Exists(output) ? JsonNode.Parse(File.ReadAllText(output))!["kernels"]!.AsObject() : [];
        var kernels = new JsonObject();
        bool failed = false;
        foreach (string suite in s_suites)
        {
            string directory = Path.Combine(results, suite);
            if (!Directory.Exists(directory))
            {
                if (before[suite] is { } earlier)
                {
                    kernels[suite] = earlier.DeepClone();
                }

                continue;
            }

            JsonObject kernel = Kernel(directory);
            kernels[suite] = kernel;
            failed |= kernel["failed"]!.GetValue<int>() > 0;
            Show(kernel);
        }

        File.WriteAllText(output, new JsonObject { ["kernels"] = kernels }.ToJsonString(s_indented) + "\n");
        if (document is not null)
        {
            KernelMatrixTable.Write(kernels, document);
        }

        return failed ? 1 : 0;
    }

    private static JsonObject Kernel(string directory)
    {
        var cases = new JsonArray();
        JsonNode? doctor = null;
        string[] plan = File.ReadAllLines(Path.Combine(directory, "plan"));
        for (int i = 0; i < plan.Length; i++)
        {
            string[] step = plan[i].Split('|');
            var run = Step(Path.Combine(directory, (i + 1).ToString(CultureInfo.InvariantCulture)), step[0], step[1]);
            doctor = step[0] is "doctor" ? run.Report : doctor;
            foreach (JsonObject entry in run.Cases)
            {
                JsonArray earlier = EarlierTries(directory, i + 1, step, entry);
                if (earlier.Count > 0)
                {
                    entry["earlier_tries"] = earlier;
                }

                cases.Add((JsonNode)entry);
            }
        }

        return new JsonObject
        {
            ["release"] = Text(directory, "kernel/release"),
            ["version"] = Text(directory, "kernel/version"),
            ["date"] = DateTime.UtcNow.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture),
            ["seconds"] = double.Parse(Text(directory, "seconds")!, CultureInfo.InvariantCulture),
            ["kvm"] = doctor?["kvm"]?["kind"]?.DeepClone(),
            ["kvm_capabilities"] = doctor?["kvm"]?["capabilities"]?.DeepClone() ?? new JsonArray(),
            ["userfaultfd_features"] = doctor?["userfaultfd"]?["features"]?.DeepClone() ?? new JsonArray(),
            ["passed"] = Count(cases, Pass),
            ["failed"] = Count(cases, Fail),
            ["unsupported"] = Count(cases, Unsupported),
            ["cases"] = cases,
        };
    }

    /// <summary>What ended a case of a step before the step was run again: a triple fault of its guest, or of the whole machine.</summary>
    private static JsonArray EarlierTries(string directory, int number, string[] step, JsonObject entry) =>
    [
        .. Directory.GetDirectories(directory).Where(path => Path.GetFileName(path).StartsWith($"{number}.", StringComparison.Ordinal)).Order(StringComparer.Ordinal)
            .Select(path => EndOf(path, step, entry)).Where(end => end is not null),
    ];

    private static JsonNode? EndOf(string directory, string[] step, JsonObject entry) => Step(directory, step[0], step[1]).Cases.ToArray() is [_, _, ..] cases
        ? cases.FirstOrDefault(earlier => $"{earlier["name"]}" == $"{entry["name"]}" && $"{earlier["backing"]}" == $"{entry["backing"]}" && $"{earlier["outcome"]}" is Fail)?["detail"]?.DeepClone()
        : Text(directory, "errors")?.Split('\n')[^1] ?? string.Empty;

    /// <summary>Reads what one step left.</summary>
    /// <param name="directory">Its output, errors and exit status.</param>
    /// <param name="title">Its name: the kind of case, and which.</param>
    /// <param name="limit">The seconds that it had.</param>
    private static (IEnumerable<JsonObject> Cases, JsonNode? Report) Step(string directory, string title, string limit)
    {
        string[] words = title.Split(' ', 2);
        (string kind, string name) = (words[0], words[^1]);
        if (Text(directory, "exit") is not { } exit)
        {
            return ([Case(kind, name, Fail, "the machine ended before this, or in it")], null);
        }

        int status = int.Parse(exit, CultureInfo.InvariantCulture);
        if (kind is Tests)
        {
            return ([TestRun(name, status, Text(directory, "output") ?? string.Empty, Text(directory, "errors") ?? string.Empty, limit)], null);
        }

        JsonNode? report = null;
        try
        {
            report = JsonNode.Parse(Text(directory, "output") ?? string.Empty);
        }
        catch (JsonException)
        {
            // What it wrote instead is told below.
        }

        if (report is null)
        {
            string reason = status == Killed ? $"found it still running after {limit} s" : $"found exit status {status} and no report: {Text(directory, "errors")}";
            return ([Case(kind, name, Fail, $"expected an end with a report, {reason}")], null);
        }

        if (kind is Conformance && report["cases"] is JsonArray rules)
        {
            return (rules.Select(rule => Case(kind, rule!, "group", "name", "backing", "outcome", "detail")), report);
        }

        bool good = status == 0 && report["ok"]!.GetValue<bool>();
        string outcome = good ? Pass : status == Refused ? Unsupported : Fail;
        string? detail = good ? null : report["error"]?.GetValue<string>() ?? $"exit status {status}";
        JsonObject entry = Case(kind, name, outcome, detail);
        entry["seconds"] = double.Parse(Text(directory, "seconds")!, CultureInfo.InvariantCulture);
        foreach (string figure in kind switch { Demo => s_demoFigures, Bench => s_benchFigures, _ => [] })
        {
            if (report[figure] is { } value)
            {
                entry[figure] = value.DeepClone();
            }
        }

        return ([entry], report);
    }

    /// <summary>The tests of a project, from what their runner says at its end and of each test that failed.</summary>
    private static JsonObject TestRun(string project, int status, string output, string errors, string limit)
    {
        string[] failed = [.. output.Split('\n').Where(line => line.StartsWith("failed ", StringComparison.Ordinal)).Select(line => line.Trim())];
        string? detail = status switch
        {
            0 => null,
            Killed => $"expected an end, found it still running after {limit} s",
            _ => $"exit status {status}: {(failed.Length > 0 ? string.Join(", ", failed) : errors)}",
        };
        JsonObject entry = Case(Tests, project, status == 0 ? Pass : Fail, detail);
        foreach (string figure in (string[])["succeeded", "failed", "skipped"])
        {
            string? said = output.Split('\n').Select(line => line.Trim()).LastOrDefault(line => line.StartsWith($"{figure}: ", StringComparison.Ordinal));
            entry[figure] = said is null ? null : int.Parse(said[(figure.Length + 2)..], CultureInfo.InvariantCulture);
        }

        return entry;
    }

    private static JsonObject Case(string kind, string name, string outcome, string? detail)
    {
        var entry = new JsonObject { ["kind"] = kind, ["name"] = name, ["outcome"] = outcome };
        if (detail is not null)
        {
            entry["detail"] = detail;
        }

        return entry;
    }

    private static JsonObject Case(string kind, JsonNode rule, params ReadOnlySpan<string> members)
    {
        var entry = new JsonObject { ["kind"] = kind };
        foreach (string member in members)
        {
            if (rule[member] is { } value)
            {
                entry[member] = value.DeepClone();
            }
        }

        return entry;
    }

    private static int Count(JsonArray cases, string outcome) => cases.Count(entry => entry!["outcome"]!.GetValue<string>() == outcome);

    private static void Show(JsonObject kernel)
    {
        Console.WriteLine($"{kernel["release"]}: {kernel["passed"]} passed, {kernel["failed"]} failed, {kernel["unsupported"]} unsupported in {kernel["seconds"]} s");
        foreach (JsonNode? entry in kernel["cases"]!.AsArray().Where(entry => entry!["kind"]!.GetValue<string>() is Tests))
        {
            Console.WriteLine($"  tests {entry!["name"]}: {entry["succeeded"]} passed, {entry["failed"]} failed, {entry["skipped"]} skipped");
        }

        foreach (JsonNode? entry in kernel["cases"]!.AsArray().Where(entry => entry!["outcome"]!.GetValue<string>() is not Pass))
        {
            Console.WriteLine($"  {entry!["outcome"]}: {entry["kind"]} {entry["name"]} {entry["backing"]}: {entry["detail"]}");
        }
    }

    private static string? Text(string directory, string file)
    {
        string path = Path.Combine(directory, file);
        return File.Exists(path) ? File.ReadAllText(path).Trim() : null;
    }
}
