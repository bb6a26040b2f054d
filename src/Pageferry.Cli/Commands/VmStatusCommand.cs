using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm status</c>: how a guest is.</summary>
internal static class VmStatusCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        Option<bool> json = CommonOptions.Json();
        var command = new Command("status", "Show how a guest is.") { control, json };
        examples[command] = ["pageferry vm status --control /tmp/guest.sock"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            VmStatus status = await client.StatusAsync(cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json) ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus) : VmStatusText.Of(status));
            return ExitCode.Done;
        });
        return command;
    }
}
