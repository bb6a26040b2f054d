using System.CommandLine;

namespace Pageferry.Cli;

/// <summary><c>pageferry engine</c>: what <c>vm receive --engine separate</c> starts.</summary>
internal static class EngineCommand
{
    /// <summary>Makes the command.</summary>
    /// <returns>The command, which nobody calls by hand.</returns>
    internal static Command Create()
    {
        var socket = new Option<int>("--socket") { Description = "The number of the socket that the guest's process is at the other end of.", HelpName = "FD", Required = true, Hidden = true };
        var command = new Command("engine", "Take a guest in for the process that started this one.") { socket };
        command.Hidden = true;
        command.SetAction(result => EngineRun.Run(result.GetRequiredValue(socket)));
        return command;
    }
}
