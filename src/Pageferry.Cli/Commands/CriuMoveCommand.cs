using System.CommandLine;
using System.Globalization;

namespace Pageferry.Cli;

/// <summary><c>pageferry criu move</c>: moves a process to another host or namespace, its memory after it.</summary>
internal static class CriuMoveCommand
{
    /// <summary>The command's name.</summary>
    internal const string Name = "move";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        var pid = new Argument<int>("PID")
        {
            Description = "The process; its descendants go along.",
            CustomParser = result =>
            {
                if (!int.TryParse(result.Tokens[0].Value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number == 0)
                {
                    result.AddError($"'{result.Tokens[0].Value}' is not a process id. Write the number that ps shows.");
                }

                return number;
            },
        };
        Option<NetworkEndpoint> to = CommonOptions.Endpoint("--to", "Where 'pageferry criu receive' listens; beyond loopback under TLS.", anyPort: false);
        var established = new Option<bool>("--tcp-established") { Description = "Take TCP connections along: the process's address has to move with it." };
        var close = new Option<bool>("--tcp-close") { Description = "Close TCP connections." };
        var networkLock = new Option<string?>("--network-lock")
        {
            Description = "What keeps connections from answering meanwhile. Default: iptables if it is installed, else nftables.",
            HelpName = "iptables|nftables|skip",
            CustomParser = result => CommonOptions.Choice(result, "iptables", "nftables", "skip"),
        };
        var shellJob = new Option<bool>("--shell-job") { Description = "Move a process that belongs to a shell's terminal." };
        var unixSockets = new Option<bool>("--ext-unix-sk") { Description = "Let Unix sockets be connected to processes that stay." };
        var locks = new Option<bool>("--file-locks") { Description = "Take file locks along." };
        Option<string> criu = CriuPath();
        Option<bool> json = CommonOptions.Json();
        json.Description = "Write JSON to standard output: an object for each step.";
        var command = new Command(Name, "Move a process to a 'criu receive': it runs there before its memory has come.") { pid, to, established, close, networkLock, shellJob, unixSockets, locks, criu, json };
        var security = new SecurityOptions(
            command,
            to,
            "The name that the destination's certificate has to be for, if it is another than --to names.",
            "whoever is on the way can read and change the process");
        command.Validators.Add(result =>
        {
            if (result.GetValue(established) && result.GetValue(close))
            {
                result.AddError("--tcp-established takes connections along and --tcp-close closes them: choose one.");
            }
        });
        examples[command] =
        [
            "pageferry criu move 1234 --to 127.0.0.1:4455",
            "pageferry criu move $(pidof redis-server) --to b.example:4455 --tcp-close \\\n"
                + "    --tls-cert a-cert.pem --tls-key a-key.pem --tls-ca ca-cert.pem",
        ];
        command.SetAction(async (result, _) =>
        {
            var settings = new MoveSettings(
                result.GetValue(pid),
                result.GetRequiredValue(to),
                result.GetRequiredValue(criu),
                new CriuTraits
                {
                    TcpEstablished = result.GetValue(established),
                    TcpClose = result.GetValue(close),
                    NetworkLock = result.GetValue(networkLock),
                    ShellJob = result.GetValue(shellJob),
                    ExtUnixSk = result.GetValue(unixSockets),
                    FileLocks = result.GetValue(locks),
                },
                security.Read(result));
            using var end = new EndRequest();
            bool isJson = result.GetValue(json);
            MoveStatus done = await ProcessMove.RunAsync(settings, new MoveDisplay(isJson, Console.Error), end.Token);
            new MoveDisplay(isJson, Console.Out).Show(done);
            return ExitCode.Done;
        });
        return command;
    }

    /// <summary>Which CRIU to use.</summary>
    internal static Option<string> CriuPath() => new("--criu") { Description = "The CRIU to use: its path, or its name on the PATH.", HelpName = "PROGRAM", DefaultValueFactory = static _ => "criu" };
}
