using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm pause</c>: has a guest stand still.</summary>
internal static class VmPauseCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        Option<bool> json = CommonOptions.Json();
        var command = new Command("pause", "Have a guest stand still; it moves and arrives so, too.") { control, json };
        examples[command] = ["pageferry vm pause --control /tmp/guest.sock"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            VmStatus status = await client.LastStatusAsync(new ControlRequest { Command = ControlRequest.Pause }, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json) ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus) : $"The guest stands still ({status.State}) in process {status.Pid}.");
            return ExitCode.Done;
        });
        return command;
    }
}
