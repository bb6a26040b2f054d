using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Pageferry.Conformance;

namespace Pageferry.Cli;

/// <summary><c>pageferry conformance</c>: the rules of userfaults, run against this kernel.</summary>
internal static class ConformanceCommand
{
    private const string AllMemory = "all";
    private const string Indent = "    ";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<bool> json = CommonOptions.Json();
        string groups = string.Join(Environment.NewLine, ConformanceSuite.Groups.Select(group => $"{group.Key} {group.Value}"));
        Option<string> group = new("--group")
        {
            Description = $"Letters of the groups to run, such as AC; all without. {groups}",
            HelpName = "LETTERS",
            DefaultValueFactory = _ => string.Concat(ConformanceSuite.Groups.Keys),
            CustomParser = result =>
            {
                string letters = result.Tokens[0].Value.ToUpperInvariant();
                if (letters.Length == 0)
                {
                    result.AddError($"--group names no group. There are {string.Concat(ConformanceSuite.Groups.Keys)}.");
                }
                else if (letters.FirstOrDefault(letter => !ConformanceSuite.Groups.ContainsKey(letter)) is var unknown and not '\0')
                {
                    result.AddError($"'{unknown}' is not a group. There are {string.Concat(ConformanceSuite.Groups.Keys)}.");
                }

                return letters;
            },
        };
        Option<string> backing = new("--backing")
        {
            Description = $"The memory to run on: {string.Join(", ", MemoryWord.All)} or all.",
            HelpName = "KIND",
            DefaultValueFactory = _ => AllMemory,
            CustomParser = result => CommonOptions.Choice(result, [AllMemory, .. MemoryWord.All]),
        };
        var command = new Command("conformance", "Run the rules of userfaults against this kernel.") { group, backing, json };
        command.Validators.Add(result =>
        {
            // As written: the value of an option that has an error can't be asked for.
            if (result.GetResult(group)?.Tokens is [{ Value: { Length: > 0 } letters }] && result.GetResult(backing)?.Tokens is [{ Value: { } word }]
                && MemoryWord.All.Contains(word, StringComparer.Ordinal) && !Selected(letters.ToUpperInvariant(), word).Any())
            {
                string[] words = [.. MemoryWord.All.Where(other => Selected(letters.ToUpperInvariant(), other).Any())];
                if (words.Length > 0)
                {
                    result.AddError($"No case of the groups {letters} is for {word}: they are for {string.Join(", ", words)}.");
                }
            }
        });
        examples[command] = ["pageferry conformance", "pageferry conformance --group CD --backing memfd", "pageferry conformance --json"];
        command.SetAction(result => Run(result.GetValue(group)!, result.GetValue(backing)!, result.GetValue(json)));
        return command;
    }

    private static int Run(string groups, string backing, bool json)
    {
        var entries = new List<ConformanceEntry>();
        TextWriter output = json ? Console.Error : Console.Out;
        foreach ((ConformanceCase rule, MemoryKind memory) in Selected(groups, backing))
        {
            CaseResult result = ConformanceSuite.Run(rule, memory);
            entries.Add(Entry(result));
            Show(output, entries[^1]);
        }

        int passed = entries.Count(entry => entry.Outcome == Word(CaseOutcome.Pass));
        int failed = entries.Count(entry => entry.Outcome == Word(CaseOutcome.Fail));
        var report = new ConformanceReport(
            failed == 0, File.ReadAllText("/proc/sys/kernel/osrelease").Trim(), passed, failed, entries.Count - passed - failed, entries);
        Console.Out.WriteLine(json
            ? JsonSerializer.Serialize(report, CliJson.Indented.ConformanceReport)
            : string.Create(CultureInfo.InvariantCulture, $"{Environment.NewLine}{report.Kernel}: {passed} passed, {failed} failed, {report.Unsupported} unsupported"));
        return failed == 0 ? ExitCode.Done : ExitCode.Failure;
    }

    private static IEnumerable<(ConformanceCase Rule, MemoryKind Memory)> Selected(string groups, string backing) =>
        from rule in ConformanceSuite.Cases
        where groups.Contains(rule.Group, StringComparison.Ordinal)
        from memory in rule.Memories
        where backing is AllMemory || backing == MemoryWord.Of(memory)
        select (rule, memory);

    private static ConformanceEntry Entry(CaseResult result) => new(
        result.Case.Group,
        result.Case.Name,
        MemoryWord.Of(result.Memory),
        Word(result.Outcome),
        result.Detail,
        result.Case.Rule,
        result.Case.Source,
        Math.Round(result.Took.TotalMilliseconds, 1));

    private static void Show(TextWriter output, ConformanceEntry entry)
    {
        output.WriteLine($"{entry.Group}  {entry.Name,-32} {entry.Backing,-11} {entry.Outcome}");
        if (entry.Detail is { } detail)
        {
            string[] explained = [.. TextWrap.Lines($"Rule: {entry.Rule} ({entry.Source}).", Indent, Indent), .. TextWrap.Lines(detail, Indent, Indent)];
            foreach (string line in explained)
            {
                output.WriteLine(line);
            }
        }
    }

    private static string Word(CaseOutcome outcome) => outcome switch
    {
        CaseOutcome.Pass => "pass",
        CaseOutcome.Fail => "fail",
        _ => "unsupported",
    };
}
