using System.CommandLine;
using System.Globalization;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm disarm</c>: lets a guest access its memory again without userfaults.</summary>
internal static class VmDisarmCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        Option<GuestRange[]> range = CommonOptions.Ranges();
        Option<bool> json = CommonOptions.Json();
        var command = new Command("disarm", "Let a guest go on with the memory that 'vm arm' armed.") { control, range, json };
        examples[command] = ["pageferry vm disarm --control /tmp/a.sock", "pageferry vm disarm --control /tmp/a.sock --range 2M+64K"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            var request = new ControlRequest { Command = ControlRequest.Disarm, Ranges = CommonOptions.TextOf(result.GetValue(range)) };
            ArmingReport report = await client.ArmAsync(request, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json)
                ? JsonSerializer.Serialize(report, CliJson.Indented.ArmingReport)
                : string.Create(CultureInfo.InvariantCulture, $"{report.PagesDisarmed:N0} pages were armed and no longer are."));
            return ExitCode.Done;
        });
        return command;
    }
}
