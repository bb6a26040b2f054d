using System.CommandLine;
using System.Net;
using System.Net.Sockets;
using Pageferry.Criu;

namespace Pageferry.Cli;

/// <summary><c>pageferry criu page-server</c>: takes the place of <c>criu page-server</c>.</summary>
internal static class CriuPageServerCommand
{
    private const string Loopback = "127.0.0.1";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        var lazy = new Option<bool>("--lazy-pages") { Description = "Serve the images to lazy restores, any number of them at once. Without: receive a dump." };
        Option<string?> address = CriuOptions.Address("The address to listen on. Default: 127.0.0.1.");
        Option<int> port = CriuOptions.Port("The port to listen on; 0: the kernel picks one.");
        var insecure = new Option<bool>("--insecure-network") { Description = "Listen beyond loopback, where whoever reaches the port can read or write the memory of processes." };
        var command = new Command("page-server", "Serve images to lazy restores, or receive a dump: in place of CRIU's own.") { lazy, address, port, insecure };
        var options = new CriuOptions(command);
        command.Validators.Add(result =>
        {
            // What is no port is said by the option.
            if (!TryReadEndpoint(result.GetValue(address) ?? Loopback, port: 0, out NetworkEndpoint? endpoint, out string error))
            {
                result.AddError(error);
            }
            else if (!result.GetValue(insecure) && !IsLoopback(endpoint!))
            {
                result.AddError(
                    $"{result.GetValue(address)} is beyond loopback, and CRIU's protocol knows neither who asks nor secrets: whoever reaches the port could read or write the memory of processes. "
                    + "Listen on 127.0.0.1 and take clients through a tunnel, such as ssh -L or WireGuard. Where nobody else reaches the network, --insecure-network does without.");
            }
        });
        examples[command] =
        [
            "pageferry criu page-server --lazy-pages -D images --port 9999",
            "pageferry criu page-server -D images --port 9999 -d --pidfile server.pid",
        ];
        command.SetAction((result, cancellation) =>
        {
            _ = TryReadEndpoint(result.GetValue(address) ?? Loopback, result.GetValue(port), out NetworkEndpoint? endpoint, out _);
            CriuSettings settings = options.Read(result);
            bool isInsecure = result.GetValue(insecure);
            if (isInsecure)
            {
                Console.Error.WriteLine("pageferry: warning: whoever reaches the port can read or write the memory of processes.");
            }

            bool isLazy = result.GetValue(lazy);
            return CriuService.RunAsync(settings, service => ExplainAsync(endpoint!, () =>
            {
                IPEndPoint listen = endpoint!.ToLocal(onlyLoopback: !isInsecure);
                return isLazy ? ServeAsync(service, settings, listen, cancellation) : ReceiveAsync(service, settings, listen, cancellation);
            }));
        });
        return command;
    }

    private static bool TryReadEndpoint(string address, int port, out NetworkEndpoint? endpoint, out string error) =>
        NetworkEndpoint.TryParse(address.Contains(':', StringComparison.Ordinal) ? $"[{address}]:{port}" : $"{address}:{port}", anyPort: true, out endpoint, out error);

    private static bool IsLoopback(NetworkEndpoint endpoint)
    {
        try
        {
            return endpoint.IsLoopback();
        }
        catch (CommandException)
        {
            // There is no such host: said when it is listened on.
            return true;
        }
    }

    private static async Task<int> ServeAsync(CriuService service, CriuSettings settings, IPEndPoint listen, CancellationToken cancellation)
    {
        using var server = PageServer.Start(settings.ImagesDirectory, listen, service.Logger);
        service.TellReady($"Serves the pages of {server.Processes} {(server.Processes == 1 ? "process" : "processes")} on {server.EndPoint}.");
        await Task.Delay(Timeout.Infinite, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return ExitCode.Done;
    }

    private static async Task<int> ReceiveAsync(CriuService service, CriuSettings settings, IPEndPoint listen, CancellationToken cancellation)
    {
        using var receiver = DumpReceiver.Start(settings.ImagesDirectory, listen, service.Logger);
        service.TellReady($"Waits for a dump on {receiver.EndPoint}.");
        ReceivedDump dump;
        try
        {
            dump = await receiver.Completion.WaitAsync(cancellation);
        }
        catch (Exception failure) when (failure is IOException or SocketException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not receive the dump: {failure.Message} What was written of it is removed, and the process goes on where it is.");
        }
        catch (OperationCanceledException)
        {
            receiver.Dispose();
            throw new CommandException(
                receiver.HasBegun ? "Told to end in the middle of a dump: what was written of it is removed, and the process goes on where it is." : "Told to end before a dump had begun.", ExitCode.Interrupted);
        }

        if (!settings.IsInBackground)
        {
            await Console.Out.WriteLineAsync($"Received {dump.Pages:N0} pages of {dump.Pagemaps} {(dump.Pagemaps == 1 ? "process" : "processes and shared memories")}.");
        }

        return ExitCode.Done;
    }

    private static async Task<int> ExplainAsync(NetworkEndpoint endpoint, Func<Task<int>> run)
    {
        try
        {
            return await run();
        }
        catch (SocketException failure)
        {
            throw new CommandException($"Could not listen on {endpoint}: {CriuService.Reason(failure)}. Give another --address or --port; 0 lets the kernel pick one.");
        }
    }
}
