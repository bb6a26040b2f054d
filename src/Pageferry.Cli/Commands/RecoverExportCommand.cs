using System.CommandLine;
using System.Globalization;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry recover export</c>: writes what one side of a migration has of a guest.</summary>
internal static class RecoverExportCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The control socket of the source or the destination.");
        Option<string> output = CommonOptions.OutputFile("Where the half goes: a file that is not there yet.");
        Option<bool> yes = CommonOptions.Yes();
        Option<bool> json = CommonOptions.Json();
        var command = new Command("export", "Write what one side has of a guest whose migration lost its link.") { control, output, yes, json };
        examples[command] = ["pageferry recover export --control /tmp/b.sock -o b.half"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            VmStatus status = await client.StatusAsync(cancellation);
            if (status.Migration?.Role == "destination" && status.State != VmState.Exported)
            {
                Confirmation.Require("The guest is stopped for this and never goes on in that process, also if its link comes back: it goes on from the file, merged with the source's half.", result.GetValue(yes));
            }

            ExportReport report = await client.ExportAsync(
                new ControlRequest { Command = ControlRequest.Export, Output = result.GetRequiredValue(output) },
                progress => Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{progress.PagesWritten:N0} of at most {progress.PagesTotal:N0} pages")),
                cancellation);
            string text = result.GetValue(json)
                ? JsonSerializer.Serialize(report, CliJson.Indented.ExportReport)
                : string.Create(CultureInfo.InvariantCulture, $"The {report.Side}'s half is in {report.Path}: {report.PagesWritten:N0} of {report.PagesTotal:N0} pages.");
            await Console.Out.WriteLineAsync(text);
            return ExitCode.Done;
        });
        return command;
    }
}
