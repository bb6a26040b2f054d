using System.CommandLine;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary><c>pageferry hold</c>: keeps file descriptors for processes that may die.</summary>
internal static class HoldCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> socket = CommonOptions.SocketPath("--socket", "Where to listen, for processes of this user.");
        Option<bool> json = CommonOptions.Json();
        Option<bool> endWithInput = CommonOptions.EndWithInput();
        var command = new Command("hold", "Keep what processes serve from, so that it outlives them: their descriptors, and nothing of a guest's memory is copied.") { socket, json, endWithInput };
        examples[command] = ["pageferry hold --socket /run/pageferry/holder.sock"];
        command.SetAction((result, cancellation) =>
        {
            string path = result.GetRequiredValue(socket);
            if (result.GetValue(endWithInput))
            {
                Lifeline.Watch(path);
            }

            // On a thread of its own: what ends it is told to this one.
            return Task.Factory.StartNew(() => Run(path, new VmOutput(result.GetValue(json)), cancellation), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        });
        return command;
    }

    private static int Run(string path, VmOutput output, CancellationToken cancellation)
    {
        using var end = new EventFd();
        using CancellationTokenRegistration registration = cancellation.Register(end.Signal);
        var manager = ServiceManager.FromEnvironment();
        List<(string Name, FileDescriptor Descriptor)> stored = manager is null ? [] : ServiceManager.TakeStored(Holder.MostStored);
        bool hasStore = manager?.TryStore() == true;
        using (var holder = Holder.Listen(path, manager: hasStore ? manager : null))
        {
            foreach (string refused in holder.TakeBack(stored))
            {
                output.Write("refused", refused);
            }

            output.Write("listening", $"Keeps what it is given at {path}, {(hasStore ? "until its service is stopped: the service manager stores it while it is started anew" : "until it is ended: then that is gone")}");
            manager?.Tell("READY=1");

            // What the command line took is not needed any more; this process may wait for months.
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            holder.Run(end.Descriptor);
            manager?.Tell("STOPPING=1");
        }

        cancellation.ThrowIfCancellationRequested();
        return ExitCode.Done;
    }
}
