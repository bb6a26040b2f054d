using System.CommandLine;
using System.CommandLine.Parsing;
using System.Text.Json;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm receive</c>: waits for a guest, and runs it when it arrives.</summary>
internal static class VmReceiveCommand
{
    /// <summary>Its name.</summary>
    internal const string Name = "receive";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<NetworkEndpoint> listen = CommonOptions.Endpoint("--listen", "Where to wait; beyond loopback under TLS. Port 0: the kernel picks one.", anyPort: true);
        Option<string> control = CommonOptions.Control("Where to make the control socket.");
        var backing = new Option<string?>("--backing")
        {
            Description = "What is to hold the guest's memory: memfd, memfd-2m, anonymous or guest-memfd. Default: what held it at the source.",
            HelpName = "KIND",
            CustomParser = result => CommonOptions.Choice(result, BackingWord.All),
        };
        Option<string> delivery = CommonOptions.Delivery();
        Option<string> dirtyTracking = CommonOptions.DirtyTracking();
        listen.Required = false;
        Option<TimeSpan?> reconnectFor = CommonOptions.ReconnectFor("the source");
        Option<TimeSpan?> linkTimeout = CommonOptions.LinkTimeout();
        Option<TimeSpan?> stallWarning = CommonOptions.Time("--stall-warning", "How long a userfault may wait before it is reported: from 10ms to 24h. Default: 1s.", "s", ("10ms", "24h"));
        Option<bool> resume = new("--resume") { Description = "Have a process that gave its source up, after the switchover, wait for it again." };
        var engine = new Option<string>("--engine")
        {
            Description = "Where the engine runs: inside this process, or separate, so that it may die or be upgraded while the guest runs.",
            HelpName = "WHERE",
            DefaultValueFactory = _ => EngineWord.Inside,
            CustomParser = result => CommonOptions.Choice(result, EngineWord.All),
        };
        Option<string> engineSocket = CommonOptions.SocketPath(
            "--engine-socket", "With --engine separate: where the engine comes that a supervisor starts (pageferry engine --guest SOCKET). Default: this process starts it.");
        engineSocket.Required = false;
        Option<string?> report = CommonOptions.Report();
        Option<bool> json = CommonOptions.Json();
        Option<bool> endWithInput = CommonOptions.EndWithInput();
        var command = new Command(Name, "Wait for a guest and run it when it arrives.") { listen, control, backing, delivery, dirtyTracking, engine, engineSocket, reconnectFor, linkTimeout, stallWarning, resume, report, json, endWithInput };
        var security = new SecurityOptions(
            command,
            listen,
            "The name that the source's certificate has to be for. Default: any that the authority has signed.",
            "whoever is on the way can read and change the guest, and whoever reaches the port can send one",
            without: resume);
        command.Validators.Add(result =>
        {
            if (result.GetValue(resume))
            {
                CommonOptions.RefuseOthers(result, resume, "the process waits as it did", control, json);
                return;
            }

            if (result.GetResult(listen) is null)
            {
                result.AddError("Option '--listen' is required.");
            }

            // A word that is none has no value here, and is complained about elsewhere.
            if (result.GetResult(engine) is { Tokens: [{ Value: EngineWord.Separate }] })
            {
                CheckSeparate(result, delivery);
            }
            else if (result.GetResult(engineSocket) is not null)
            {
                result.AddError("--engine-socket is where an engine in a process of its own comes to. Give --engine separate too.");
            }
        });
        examples[command] =
        [
            "pageferry vm receive --listen 127.0.0.1:4444 --control /tmp/b.sock",
            "pageferry vm receive --listen 127.0.0.1:0 --control b.sock --delivery exit",
            "pageferry vm receive --listen 127.0.0.1:0 --control b.sock --engine separate",
            "pageferry vm receive --listen 127.0.0.1:0 --control b.sock --engine separate \\\n"
                + "    --engine-socket /run/pageferry/engine.sock",
            "pageferry vm receive --listen 0.0.0.0:4444 --control b.sock \\\n"
                + "    --tls-cert b-cert.pem --tls-key b-key.pem --tls-ca ca-cert.pem",
        ];
        command.SetAction((result, cancellation) =>
        {
            string path = result.GetRequiredValue(control);
            if (result.GetValue(resume))
            {
                return ResumeAsync(path, result.GetValue(json), cancellation);
            }

            bool isSeparate = result.GetValue(engine) is EngineWord.Separate;
            bool held = result.GetValue(endWithInput);
            if (held)
            {
                Lifeline.Watch(path);
            }

            var options = new VmProcessOptions(path, new VmOutput(result.GetValue(json)), held, isSeparate ? DeliveryWord.Queue : result.GetRequiredValue(delivery), result.GetValue(report))
            {
                HasSeparateEngine = isSeparate,
                EngineSocket = result.GetValue(engineSocket) is { } place ? Path.GetFullPath(place) : null,
                ReconnectFor = result.GetValue(reconnectFor) ?? Timeout.InfiniteTimeSpan,
                LinkTimeout = result.GetValue(linkTimeout) ?? MigrationOptions.DefaultLinkTimeout,
                StallWarning = result.GetValue(stallWarning) ?? TimeSpan.FromSeconds(1),
            };
            return VmProcess.ReceiveAsync(
                result.GetRequiredValue(listen), security.Read(result), result.GetValue(backing), result.GetRequiredValue(dirtyTracking), options);
        });
        return command;
    }

    private static void CheckSeparate(CommandResult result, Option<string> delivery)
    {
        if (result.GetResult(delivery) is { Tokens: [{ Value: DeliveryWord.Exit }] })
        {
            result.AddError("--engine separate answers userfaults from the queue: exits are resolved by the vCPUs' own threads, in the guest's process. Leave --delivery out.");
        }
    }

    private static async Task<int> ResumeAsync(string control, bool json, CancellationToken cancellation)
    {
        using var client = ControlClient.Connect(control);
        VmStatus status = await client.LastStatusAsync(new ControlRequest { Command = ControlRequest.Recover }, cancellation);
        await Console.Out.WriteLineAsync(json
            ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus)
            : $"The guest in process {status.Pid} waits for its source on {status.Listen}.");
        return ExitCode.Done;
    }
}
