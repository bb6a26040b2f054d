using System.CommandLine;
using System.Net.Sockets;
using Pageferry.Criu;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>
/// <c>pageferry criu guard</c>, hidden: outlives a <c>criu move</c> that is killed before the point of no return, and has CRIU let the frozen processes go on. One line on standard input
/// tells it that it isn't needed any more.
/// </summary>
internal static class CriuGuardCommand
{
    /// <summary>The command's name.</summary>
    internal const string Name = "guard";

    /// <summary>Makes the command.</summary>
    internal static Command Create()
    {
        var socket = new Option<int>("--socket") { Description = "The file descriptor whose other end CRIU has.", Required = true };
        var images = new Option<string>("--images-dir") { Description = "What was dumped of them, which is removed with their move.", Required = true };
        var command = new Command(Name, "Free processes whose move was killed.") { socket, images };
        command.Hidden = true;
        command.SetAction(result =>
        {
            // Signals of the terminal are for the command that is guarded.
            CurrentProcess.BeginSession();
            using UnixSocket criu = UnixSocket.FromDescriptor(new FileDescriptor(result.GetRequiredValue(socket)));
            using FileStream answer = DumpHook.OpenAnswer(result.GetRequiredValue(images));
            Console.Out.WriteLine("ready");
            if (Console.In.ReadLine() is null)
            {
                DumpHook.GoOn(answer);
                LazyDumpEnd.GiveUp(criu);
                Directory.Delete(result.GetRequiredValue(images), recursive: true);
            }

            return ExitCode.Done;
        });
        return command;
    }
}
