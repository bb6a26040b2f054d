using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Pageferry.Snapshots;

namespace Pageferry.Cli;

/// <summary><c>pageferry recover merge</c>: makes one guest of two halves.</summary>
internal static class RecoverMergeCommand
{
    private static readonly TimeSpan s_progressInterval = TimeSpan.FromSeconds(1);

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        var destination = new Argument<string>("DESTINATION-HALF") { Description = "What 'recover export' wrote of the destination." };
        var source = new Argument<string>("SOURCE-HALF") { Description = "What it wrote of the source." };
        Option<string> output = CommonOptions.OutputFile("Where the guest goes: a file that is not there yet.");
        Option<bool> json = CommonOptions.Json();
        var command = new Command("merge", "Make one guest of its two halves.") { destination, source, output, json };
        examples[command] = ["pageferry recover merge b.half a.half -o guest.snapshot"];
        command.SetAction(async (result, _) =>
        {
            string path = result.GetRequiredValue(output);
            var merge = new SnapshotMerge();
            Task merging = Task.Run(() => merge.Run(result.GetRequiredValue(destination), result.GetRequiredValue(source), path), CancellationToken.None);
            while (await Task.WhenAny(merging, Task.Delay(s_progressInterval, CancellationToken.None)) != merging)
            {
                await Console.Error.WriteLineAsync(string.Create(CultureInfo.InvariantCulture, $"{merge.Reached:N0} pages"));
            }

            try
            {
                await merging;
            }
            catch (UnauthorizedAccessException failure)
            {
                throw new CommandException(failure.Message);
            }

            var report = new MergeReport(Ok: true, path, merge.FromDestination, merge.FromSource);
            await Console.Out.WriteLineAsync(result.GetValue(json)
                ? JsonSerializer.Serialize(report, CliJson.Indented.MergeReport)
                : string.Create(CultureInfo.InvariantCulture, $"The guest is in {path}: {report.FromDestination:N0} pages of the destination's, {report.FromSource:N0} of the source's.\nRun it with: pageferry vm run --from {path} --control SOCKET"));
            return ExitCode.Done;
        });
        return command;
    }
}
