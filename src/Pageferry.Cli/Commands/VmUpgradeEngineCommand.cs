using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm upgrade-engine</c>: another program takes over as the engine of a guest that is arriving.</summary>
internal static class VmUpgradeEngineCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The control socket of a 'vm receive --engine separate'.");
        var binary = new Option<string?>("--binary") { Description = "The pageferry program to run as the engine. Default: the one that runs, as its file is now.", HelpName = "FILE" };
        Option<bool> json = CommonOptions.Json();
        var command = new Command("upgrade-engine", "Replace the engine of an arriving guest by another build of it.") { control, binary, json };
        examples[command] = ["pageferry vm upgrade-engine --control b.sock --binary /opt/new/pageferry"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            string? program = result.GetValue(binary) is { } path ? Path.GetFullPath(path) : null;
            VmStatus status = await client.LastStatusAsync(new ControlRequest { Command = ControlRequest.ReplaceEngine, Program = program }, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json)
                ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus)
                : $"The engine is {status.Engine?.Version} in process {status.Engine?.Pid}; the guest's state is '{status.State}' in process {status.Pid}.");
            return ExitCode.Done;
        });
        return command;
    }
}
