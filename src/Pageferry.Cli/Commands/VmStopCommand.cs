using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm stop</c>: ends a guest and its process.</summary>
internal static class VmStopCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        var yes = new Option<bool>("--yes") { Description = "End the process also while a guest needs what only it has: after the switchover, until all memory has followed." };
        Option<bool> json = CommonOptions.Json();
        var command = new Command("stop", "End a guest and its process.") { control, yes, json };
        examples[command] = ["pageferry vm stop --control /tmp/guest.sock"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            VmStatus status = await client.LastStatusAsync(new ControlRequest { Command = ControlRequest.Stop, Yes = result.GetValue(yes) ? true : null }, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json) ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus) : $"Process {status.Pid} ends.");
            return ExitCode.Done;
        });
        return command;
    }
}
