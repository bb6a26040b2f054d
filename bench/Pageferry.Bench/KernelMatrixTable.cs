using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>Kernels × cases as a table of a Markdown document, between two marks.</summary>
internal static class KernelMatrixTable
{
    private const string Begin = "<!-- kernel-matrix: written by eng/kernel-matrix.sh -->";
    private const string End = "<!-- kernel-matrix: end -->";
    private const string None = "–";

    /// <summary>Writes the table.</summary>
    /// <param name="kernels">The results of each kernel.</param>
    /// <param name="document">The document that has the marks.</param>
    /// <exception cref="InvalidDataException">It doesn't have them.</exception>
    internal static void Write(JsonObject kernels, string document)
    {
        string text = File.ReadAllText(document);
        int begin = text.IndexOf(Begin, StringComparison.Ordinal);
        int end = text.IndexOf(End, StringComparison.Ordinal);
        if (begin < 0 || end < begin)
        {
            throw new InvalidDataException($"{document} has no place for the table: a line '{Begin}' and after it a line '{End}'.");
        }

        File.WriteAllText(document, $"{text[..(begin + Begin.Length)]}\n\n{Table([.. kernels.Select(kernel => kernel.Value!)])}\n{text[end..]}");
    }

    private static string Table(IReadOnlyList<JsonNode> kernels)
    {
        var table = new StringBuilder();
        Row(table, "", kernels.Select(Release));
        Row(table, "---", kernels.Select(_ => "---"));
        Row(table, "run on", kernels.Select(kernel => $"{kernel["date"]}"));
        Row(table, "KVM", kernels.Select(kernel => $"{kernel["kvm"]}"));
        Row(table, "lacks of userfaultfd", Lacks(kernels, "userfaultfd_features"));
        Row(table, "lacks of KVM", Lacks(kernels, "kvm_capabilities"));
        AddConformance(table, kernels);
        AddFigures(table, kernels, KernelMatrix.Demo);
        AddFigures(table, kernels, KernelMatrix.Bench);
        AddAnswers(table, kernels);
        return table.ToString();
    }

    /// <summary>A row for each group, and one for each case that isn't a pass on every kernel.</summary>
    private static void AddConformance(StringBuilder table, IReadOnlyList<JsonNode> kernels)
    {
        var groups = kernels.SelectMany(kernel => Cases(kernel, KernelMatrix.Conformance))
            .GroupBy(entry => $"{entry["group"]}", StringComparer.Ordinal).OrderBy(group => group.Key, StringComparer.Ordinal);
        foreach (var group in groups)
        {
            Row(table, group.Key.Length > 0 ? $"conformance, group {group.Key}" : "conformance", kernels.Select(kernel => Sum(Cases(kernel, KernelMatrix.Conformance).Where(entry => $"{entry["group"]}" == group.Key))));

            // Memories with the same answers share a row.
            var rows = group.Select(entry => (Name: $"{entry["name"]}", Backing: $"{entry["backing"]}")).Distinct()
                .Select(rule => (rule.Name, rule.Backing, Outcomes: kernels.Select(kernel => Outcome(kernel, rule.Name, rule.Backing)).ToArray()))
                .Where(rule => rule.Outcomes.Any(outcome => outcome is not KernelMatrix.Pass))
                .GroupBy(rule => (rule.Name, Cells: string.Join('|', rule.Outcomes)));
            foreach (var row in rows)
            {
                Row(table, $"{group.Key}: `{row.Key.Name}`, {string.Join(", ", row.Select(rule => rule.Backing))}", row.First().Outcomes);
            }
        }
    }

    private static void AddFigures(StringBuilder table, IReadOnlyList<JsonNode> kernels, string kind)
    {
        foreach (string name in kernels.SelectMany(kernel => Cases(kernel, kind)).Select(entry => $"{entry["name"]}").Distinct(StringComparer.Ordinal))
        {
            Row(table, $"{kind} {name}", kernels.Select(kernel => Cases(kernel, kind).FirstOrDefault(entry => $"{entry["name"]}" == name) is { } entry ? Figures(entry) : None));
        }
    }

    /// <summary>What a kernel answered where a case isn't a pass, once for all cases with the same answer.</summary>
    private static void AddAnswers(StringBuilder table, IReadOnlyList<JsonNode> kernels)
    {
        _ = table.Append('\n');
        foreach (JsonNode kernel in kernels)
        {
            var answers = kernel["cases"]!.AsArray().Select(entry => entry!).Where(entry => $"{entry["outcome"]}" is not KernelMatrix.Pass)
                .GroupBy(entry => (Outcome: $"{entry["outcome"]}", Detail: $"{entry["detail"]}"));
            foreach (var answer in answers)
            {
                string cases = string.Join(", ", answer.Select(entry => $"`{entry["name"]}`").Distinct(StringComparer.Ordinal));
                _ = table.Append(CultureInfo.InvariantCulture, $"- {Release(kernel)}, {answer.Key.Outcome}: {cases}. {Line(answer.Key.Detail)}\n");
            }
        }
    }

    private static string Figures(JsonNode entry)
    {
        string outcome = $"{entry["outcome"]}";
        if (outcome is not KernelMatrix.Pass)
        {
            return outcome;
        }

        if (entry["earlier_tries"] is JsonArray earlier)
        {
            outcome = $"{outcome} at try {earlier.Count + 1}";
        }

        return entry["ratios"] is JsonArray ratios
            ? string.Join(", ", ratios.Select(ratio => string.Create(CultureInfo.InvariantCulture, $"{ratio!["delivery"]} : {ratio["to"]} {Number(ratio["ratio"]):F2}×")))
            : string.Create(CultureInfo.InvariantCulture, $"{outcome}, {Number(entry["downtime_ms"]):F0} ms, {entry["pages_wrong"]} wrong");
    }

    /// <summary>For each kernel the names that it lacks and another one has.</summary>
    private static IEnumerable<string> Lacks(IReadOnlyList<JsonNode> kernels, string member)
    {
        string[][] names = [.. kernels.Select(kernel => kernel[member]!.AsArray().Select(name => $"{name}").ToArray())];
        string[] all = [.. names.SelectMany(of => of).Distinct(StringComparer.Ordinal)];
        return names.Select(of => all.Except(of, StringComparer.Ordinal).ToArray()).Select(lacking => lacking.Length > 0 ? string.Join(", ", lacking) : None);
    }

    private static string Sum(IEnumerable<JsonNode> cases)
    {
        string[] sums = [.. cases.GroupBy(entry => $"{entry["outcome"]}", StringComparer.Ordinal).OrderBy(outcome => outcome.Key is KernelMatrix.Pass ? 0 : 1).Select(outcome => $"{outcome.Count()} {outcome.Key}")];
        return sums.Length > 0 ? string.Join(", ", sums) : None;
    }

    private static string Outcome(JsonNode kernel, string name, string backing) =>
        Cases(kernel, KernelMatrix.Conformance).FirstOrDefault(entry => $"{entry["name"]}" == name && $"{entry["backing"]}" == backing) is { } entry ? $"{entry["outcome"]}" : None;

    private static IEnumerable<JsonNode> Cases(JsonNode kernel, string kind) =>
        kernel["cases"]!.AsArray().Select(entry => entry!).Where(entry => $"{entry["kind"]}" == kind);

    private static string Release(JsonNode kernel) => $"{kernel["release"]}";

    private static double Number(JsonNode? value) => value?.GetValue<double>() ?? 0;

    private static string Line(string text) => string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

    private static void Row(StringBuilder table, string title, IEnumerable<string> cells) =>
        _ = table.Append("| ").Append(title).Append(" | ").AppendJoin(" | ", cells).Append(" |\n");
}
