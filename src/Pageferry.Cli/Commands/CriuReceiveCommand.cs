using System.CommandLine;
using System.Net;
using System.Net.Sockets;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary><c>pageferry criu receive</c>: waits for a process that <c>criu move</c> moves, and runs it.</summary>
internal static class CriuReceiveCommand
{
    /// <summary>The command's name.</summary>
    internal const string Name = "receive";

    private static readonly TimeSpan s_betweenLooks = TimeSpan.FromSeconds(1);

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<NetworkEndpoint> listen = CommonOptions.Endpoint("--listen", "Where to wait; beyond loopback under TLS. Port 0: the kernel picks one.", anyPort: true);
        Option<string> criu = CriuMoveCommand.CriuPath();
        Option<string> background = CriuOptions.Background();
        Option<long> bandwidth = CriuOptions.MaxBandwidth();
        Option<bool> json = CommonOptions.Json();
        json.Description = "Write JSON to standard output: an object for each step.";
        var command = new Command(Name, "Wait for a process that 'criu move' moves, run it, and bring its memory.") { listen, criu, background, bandwidth, json };
        var security = new SecurityOptions(
            command,
            listen,
            "The name that the source's certificate has to be for. Default: any that the authority has signed.",
            "whoever is on the way can read and change the process, and whoever reaches the port can have anything run");
        examples[command] =
        [
            "pageferry criu receive --listen 127.0.0.1:4455",
            "unshare -p -f -m --mount-proc pageferry criu receive --listen 127.0.0.1:4455",
            "pageferry criu receive --listen 0.0.0.0:4455 \\\n"
                + "    --tls-cert b-cert.pem --tls-key b-key.pem --tls-ca ca-cert.pem",
        ];
        command.SetAction(async (result, _) =>
        {
            var settings = new ReceiveSettings(
                result.GetRequiredValue(listen),
                result.GetRequiredValue(criu),
                CriuOptions.ReadBackground(result.GetRequiredValue(background)),
                result.GetValue(bandwidth),
                security.Read(result));
            var display = new MoveDisplay(result.GetValue(json), Console.Out);
            using var end = new EndRequest();
            try
            {
                await ReceiveAsync(settings, display, end.Token);
            }
            catch (OperationCanceledException)
            {
                return ExitCode.Interrupted;
            }

            return ExitCode.Done;
        });
        return command;
    }

    private static async Task ReceiveAsync(ReceiveSettings settings, MoveDisplay display, CancellationToken cancellation)
    {
        // What is missing is better known now than when a process is on its way.
        _ = await CriuProgram.FindAsync(settings.Criu);
        using MigrationSecurity? security = settings.Security.Load();
        IPEndPoint local = settings.Listen.ToLocal(onlyLoopback: security is null && !settings.Security.InsecureNetwork);
        int pid = 0;
        try
        {
            using var listener = new MoveListener(local, security, () => new ArrivingProcess(settings, display, arrived => pid = arrived));
            display.Show(new MoveStatus { Phase = "listening", Text = $"Waits for a process on {listener.EndPoint}." });
            await listener.RunAsync(cancellation);
        }
        catch (SocketException failure)
        {
            throw new CommandException($"Could not listen on {settings.Listen}: {CriuService.Reason(failure)}. Give another --listen; port 0 lets the kernel pick one.");
        }

        // The first process of a pid namespace takes all others with it when it ends.
        while (Environment.ProcessId == 1 && ProcFiles.Stat(pid) is [not ("Z" or "X"), ..])
        {
            await Task.Delay(s_betweenLooks, cancellation);
        }
    }
}
