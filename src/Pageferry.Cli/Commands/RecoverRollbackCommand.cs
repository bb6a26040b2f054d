using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry recover rollback</c>: has a guest go on at its source, as it was at the switchover.</summary>
internal static class RecoverRollbackCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The control socket of the source.");
        var fenced = new Option<bool>("--destination-is-fenced")
        {
            Description = "You vouch that the destination can't run the guest: its host is off, or cut off for good from its network and disks.",
        };
        Option<bool> yes = CommonOptions.Yes();
        Option<bool> json = CommonOptions.Json();
        var command = new Command("rollback", "Have a guest go on at its source, as it was at the switchover.") { control, fenced, yes, json };
        examples[command] =
        [
            "pageferry recover rollback --control /tmp/a.sock",
            "pageferry recover rollback --control /tmp/a.sock --destination-is-fenced --yes",
        ];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            Confirmation.Require(
                "The guest goes back to the moment of its switchover. What it did at the destination since is undone, and whoever it spoke to over a network, or whatever disk it wrote to, does not go back with it."
                    + (result.GetValue(fenced) ? " You vouch that it does not run at the destination: if it does, there are two of it." : string.Empty),
                result.GetValue(yes));
            VmStatus status = await client.LastStatusAsync(
                new ControlRequest { Command = ControlRequest.Rollback, DestinationIsFenced = result.GetValue(fenced) }, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json)
                ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus)
                : $"The guest is back at its switchover, {status.State} in process {status.Pid}.");
            return ExitCode.Done;
        });
        return command;
    }
}
