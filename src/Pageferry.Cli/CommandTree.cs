using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Parsing;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary>The command <c>pageferry</c> with all its subcommands, and how it ends.</summary>
internal static class CommandTree
{
    /// <summary>Runs a command line.</summary>
    /// <param name="arguments">The arguments, without the program's name.</param>
    /// <returns>The exit status, one of <see cref="ExitCode"/>.</returns>
    internal static async Task<int> RunAsync(string[] arguments)
    {
        RootCommand root = Create();
        ParseResult result = root.Parse(arguments);
        if (result.CommandResult.Command is { Subcommands.Count: > 0 } && result.UnmatchedTokens.Count == 0 && result.Action is not HelpWithExamples && result.Errors.Count > 0)
        {
            _ = await root.Parse([.. arguments, "--help"]).InvokeAsync(new InvocationConfiguration { Output = Console.Error });
            return ExitCode.Usage;
        }

        bool json = result.GetResult("--json") is OptionResult { Implicit: false };
        if (result.Errors.Count > 0 && result.Action is not HelpWithExamples)
        {
            string asked = string.Join(' ', Path(result.CommandResult));
            bool unknown = result.UnmatchedTokens.Count > 0 && result.CommandResult.Command.Subcommands.Count > 0;
            Fail(unknown ? $"'{result.UnmatchedTokens[0]}' is not a command of '{asked}'." : string.Join(Environment.NewLine, result.Errors.Select(error => error.Message)), json);
            await Console.Error.WriteLineAsync($"See '{asked} --help'.");
            return ExitCode.Usage;
        }

        try
        {
            var configuration = new InvocationConfiguration { EnableDefaultExceptionHandler = false };
            if (EndsWhenItCan(result.CommandResult.Command))
            {
                // No deadline ends it in the middle.
                configuration.ProcessTerminationTimeout = null;
            }

            return await result.InvokeAsync(configuration);
        }
        catch (OperationCanceledException)
        {
            return ExitCode.Interrupted;
        }
        catch (CommandException e)
        {
            Fail(e.Message, json);
            return e.ExitCode;
        }
        catch (Exception e)
        {
            // IOException carries a message made for the user (LinuxException is one); of anything else its kind is worth knowing.
            Fail(e is IOException ? e.Message : $"{e.GetType().Name}: {e.Message}", json);
            return ExitCode.Failure;
        }
    }

    /// <summary>Makes the command with all its subcommands.</summary>
    internal static RootCommand Create()
    {
        var examples = new Dictionary<Command, string[]>();
        var vm = new Command("vm", "Run, move and end guests, each in a process of its own.")
        {
            VmRunCommand.Create(examples),
            VmReceiveCommand.Create(examples),
            VmMigrateCommand.Create(examples),
            VmServeCommand.Create(examples),
            VmCancelCommand.Create(examples),
            VmPauseCommand.Create(examples),
            VmResumeCommand.Create(examples),
            VmStatusCommand.Create(examples),
            VmArmCommand.Create(examples),
            VmDisarmCommand.Create(examples),
            VmUpgradeEngineCommand.Create(examples),
            VmStopCommand.Create(examples),
        };
        examples[vm] =
        [
            "pageferry vm run stamp --memory 1G --control /tmp/a.sock",
            "pageferry vm receive --listen 127.0.0.1:4444 --control /tmp/b.sock",
            "pageferry vm migrate --control /tmp/a.sock --to 127.0.0.1:4444",
        ];
        var bench = new Command("bench", "Measure what userfaults cost here.") { BenchDemandPagingCommand.Create(examples) };
        examples[bench] = ["pageferry bench demand-paging --compare"];
        var tls = new Command("tls", "Make certificates for migrations between hosts.") { TlsInitCommand.Create(examples) };
        examples[tls] = ["pageferry tls init --host a.example --host b.example"];
        var criu = new Command("criu", "Move processes, and take the place of CRIU's own programs when they move.")
        {
            CriuMoveCommand.Create(examples),
            CriuReceiveCommand.Create(examples),
            CriuLazyPagesCommand.Create(examples),
            CriuPageServerCommand.Create(examples),
            CriuGuardCommand.Create(),
        };
        examples[criu] =
        [
            "pageferry criu receive --listen 127.0.0.1:4455",
            "pageferry criu move 1234 --to 127.0.0.1:4455",
            "pageferry criu page-server --lazy-pages -D images --port 9999",
        ];
        var recover = new Command("recover", "Bring a guest back whose migration lost a side.")
        {
            RecoverExportCommand.Create(examples),
            RecoverMergeCommand.Create(examples),
            RecoverRollbackCommand.Create(examples),
        };
        examples[recover] =
        [
            "pageferry recover export --control /tmp/a.sock -o a.half",
            "pageferry recover merge b.half a.half -o guest.snapshot",
        ];
        var root = new RootCommand("Moves running guests between processes: the guest goes first, its memory follows when it is touched.")
        {
            DemoCommand.Create(examples),
            DoctorCommand.Create(examples),
            ConformanceCommand.Create(examples),
            TortureCommand.Create(examples),
            bench,
            tls,
            vm,
            recover,
            EngineCommand.Create(examples),
            HoldCommand.Create(examples),
            criu,
        };
        examples[root] = ["pageferry demo", "pageferry doctor"];
        foreach (Option option in root.Options)
        {
            if (option is HelpOption { Action: HelpAction help })
            {
                option.Action = new HelpWithExamples(help, examples);
            }
        }

        return root;
    }

    /// <summary>Whether a command takes the signals that tell it to end itself: see <see cref="EndRequest"/>.</summary>
    private static bool EndsWhenItCan(Command command) => command.Parents.FirstOrDefault()?.Name switch
    {
        "criu" => command.Name is CriuMoveCommand.Name or CriuReceiveCommand.Name or CriuLazyPagesCommand.Name,
        "vm" => command.Name is VmRunCommand.Name or VmReceiveCommand.Name or VmServeCommand.Name,
        _ => false,
    };

    private static void Fail(string message, bool json)
    {
        Console.Error.WriteLine($"pageferry: {message}");
        if (json)
        {
            Console.Out.WriteLine(JsonSerializer.Serialize(new FailureReport(Ok: false, message), CliJson.Default.FailureReport));
        }
    }

    private static IEnumerable<string> Path(CommandResult result)
    {
        IEnumerable<string> parents = result.Parent is CommandResult parent ? Path(parent) : [];
        return parents.Append(result.Command is RootCommand ? "pageferry" : result.Command.Name);
    }
}
