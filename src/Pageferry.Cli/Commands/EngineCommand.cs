using System.CommandLine;

namespace Pageferry.Cli;

/// <summary><c>pageferry engine</c>: what <c>vm receive --engine separate</c> starts, or a supervisor does for it.</summary>
internal static class EngineCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> guest = CommonOptions.SocketPath("--guest", "Where the guest's process listens for engines: what its 'vm receive' has as --engine-socket. It is waited for.");
        guest.Required = false;
        var socket = new Option<int?>("--socket") { Description = "The number of the socket that the guest's process, which started this one, is at the other end of.", HelpName = "FD", Hidden = true };
        var command = new Command("engine", "Take guests' memory in, for a 'vm receive --engine separate' that leaves it to a supervisor to start this.") { guest, socket };
        examples[command] = ["pageferry engine --guest /run/pageferry/engine.sock"];
        command.Validators.Add(result =>
        {
            if (result.GetResult(guest) is null && result.GetResult(socket) is null)
            {
                result.AddError("Option '--guest' is required.");
            }
        });
        command.SetAction(result => result.GetValue(socket) is { } number ? EngineRun.RunStarted(number) : EngineRun.RunSupervised(result.GetRequiredValue(guest)));
        return command;
    }
}
