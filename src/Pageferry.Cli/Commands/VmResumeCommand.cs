using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm resume</c>: lets a guest go on that stands still.</summary>
internal static class VmResumeCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        Option<bool> json = CommonOptions.Json();
        var command = new Command("resume", "Let a guest go on that stands still.") { control, json };
        examples[command] = ["pageferry vm resume --control /tmp/guest.sock"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            VmStatus status = await client.LastStatusAsync(new ControlRequest { Command = ControlRequest.Resume }, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json) ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus) : $"The guest goes on ({status.State}) in process {status.Pid}.");
            return ExitCode.Done;
        });
        return command;
    }
}
