using System.CommandLine;
using System.Globalization;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry torture</c>: disturbs migrations at random and looks for a guest that was harmed.</summary>
internal static class TortureCommand
{
    private const int DefaultCount = 20;

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<int?> seed = Number("--seed", "What everything that is done follows from. Default: any; it is printed.", 0);
        Option<int?> count = Number("--count", $"Runs. Default: {DefaultCount}, or no limit with --minutes.", 1);
        Option<int?> minutes = Number("--minutes", "Minutes after which no run is begun. Default: no limit.", 1);
        var modes = new Option<TortureScenario[]>("--modes")
        {
            Description = $"What is done, in turns, separated by commas: {string.Join(", ", ScenarioWord.All)}. Default: all of these.",
            HelpName = "LIST",
            CustomParser = result =>
            {
                string[] words = result.Tokens[0].Value.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
                if (words.FirstOrDefault(word => ScenarioWord.Parse(word) is null) is { } unknown)
                {
                    result.AddError($"'{unknown}' is not a value of --modes. Choose from: {string.Join(", ", ScenarioWord.All)}.");
                }
                else if (words.Length == 0)
                {
                    result.AddError($"--modes names nothing. Choose from: {string.Join(", ", ScenarioWord.All)}.");
                }

                return [.. words.Select(ScenarioWord.Parse).OfType<TortureScenario>().Distinct()];
            },
        };
        Option<MemorySize> memory = CommonOptions.Size("--memory", "The guests' memory: a number and K, M, G or T; without a unit, MiB.", 64UL << 20);
        var mode = new Option<string>("--mode")
        {
            Description = "When memory goes, as for 'vm migrate', or any: the seed chooses.",
            HelpName = "any|auto|precopy|postcopy",
            DefaultValueFactory = _ => TortureOptions.AnyMode,
            CustomParser = result => CommonOptions.Choice(result, TortureOptions.AnyMode, "auto", "precopy", "postcopy"),
        };
        Option<bool> json = CommonOptions.Json();
        var command = new Command(
            "torture",
            "Cut, delay, silence and corrupt the connections of migrations, stop and kill their processes, at random, and see whether a guest is harmed. "
            + "What a process took along that was killed is brought back as a person would.")
        {
            seed, count, minutes, modes, memory, mode, json,
        };
        examples[command] = ["pageferry torture", "pageferry torture --minutes 10 --modes cut,corrupt", "pageferry torture --seed 4711 --count 1"];
        command.SetAction((result, cancellation) => RunAsync(
            new TortureOptions(
                result.GetValue(seed) ?? Random.Shared.Next(),
                result.GetValue(count) ?? (result.GetValue(minutes) is null ? DefaultCount : null),
                result.GetValue(minutes),
                result.GetValue(modes) is { Length: > 0 } chosen ? chosen : [.. ScenarioWord.Scenarios],
                result.GetRequiredValue(memory),
                result.GetRequiredValue(mode)),
            result.GetValue(json),
            cancellation));
        return command;
    }

    private static async Task<int> RunAsync(TortureOptions options, bool json, CancellationToken cancellation)
    {
        await Console.Error.WriteLineAsync($"seed {options.Seed}");
        TortureReport report = await Torture.RunAsync(options, cancellation);
        if (json)
        {
            await Console.Out.WriteLineAsync(JsonSerializer.Serialize(report, CliJson.Indented.TortureReport));
        }
        else
        {
            TortureDisplay.Show(report);
        }

        return report.Ok ? ExitCode.Done : ExitCode.Failure;
    }

    private static Option<int?> Number(string name, string description, int least) => new(name)
    {
        Description = description,
        HelpName = "N",
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number < least)
            {
                result.AddError($"'{text}' is not a value of {name}. Write a whole number from {least} to {int.MaxValue}.");
            }

            return number;
        },
    };
}
