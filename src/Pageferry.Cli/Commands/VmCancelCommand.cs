using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm cancel</c>: ends a migration before its switchover.</summary>
internal static class VmCancelCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The control socket of the guest that is moving.");
        Option<bool> json = CommonOptions.Json();
        var command = new Command("cancel", "End a migration: before its switchover the guest goes on where it is.") { control, json };
        examples[command] = ["pageferry vm cancel --control /tmp/a.sock"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            VmStatus status = await client.LastStatusAsync(new ControlRequest { Command = ControlRequest.Cancel }, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json)
                ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus)
                : $"The migration was cancelled; the guest is {status.State} in process {status.Pid}.");
            return ExitCode.Done;
        });
        return command;
    }
}
