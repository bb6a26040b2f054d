using System.CommandLine;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Pageferry.Criu;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary><c>pageferry criu lazy-pages</c>: takes the place of <c>criu lazy-pages</c>.</summary>
internal static class CriuLazyPagesCommand
{
    /// <summary>The command's name.</summary>
    internal const string Name = "lazy-pages";

    private const string Loopback = "127.0.0.1";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        var remote = new Option<bool>("--page-server") { Description = "Get the pages from a page server. Without: from the images." };
        Option<string?> address = CriuOptions.Address("The page server's address. Default: 127.0.0.1.");
        Option<int> port = CriuOptions.Port("The page server's port.");
        Option<string> background = CriuOptions.Background();
        Option<long> bandwidth = CriuOptions.MaxBandwidth();
        Option<string?> holder = CommonOptions.Holder("Keep what is needed to go on with a 'pageferry hold' that listens there, so that processes stall, and no more, if this one dies.");
        var resume = new Option<bool>("--resume") { Description = "Go on for a daemon that died, with the same options: from what the holder keeps of its work directory." };
        Option<bool> json = CommonOptions.Json();
        json.Description = "Write what it took as JSON to standard output, and nothing else.";
        var command = new Command(Name, "Bring the pages of processes that 'criu restore --lazy-pages' restores: in place of CRIU's own.") { remote, address, port, background, bandwidth, holder, resume, json };
        var options = new CriuOptions(command);
        command.Validators.Add(result =>
        {
            // What is no port is said by the option.
            if (result.GetValue(remote) && result.GetResult(port) is null or { Tokens: [.., { Value: "0" }] })
            {
                result.AddError("--page-server needs the server's --port.");
            }

            if (result.GetValue(resume) && result.GetValue(holder) is null)
            {
                result.AddError("--resume needs the --holder that the daemon which died was started with.");
            }
        });
        examples[command] =
        [
            "pageferry criu lazy-pages -D images -W work",
            "pageferry criu lazy-pages -D images --page-server --port 9999",
            "pageferry criu lazy-pages -D images -W work \\\n"
                + "    --holder /run/pageferry/holder.sock --resume",
        ];
        command.SetAction((result, _) =>
        {
            CriuSettings settings = options.Read(result);
            NetworkEndpoint? server = null;
            if (result.GetValue(remote))
            {
                string host = result.GetValue(address) ?? Loopback;
                string text = host.Contains(':', StringComparison.Ordinal) ? $"[{host}]:{result.GetValue(port)}" : $"{host}:{result.GetValue(port)}";
                if (!NetworkEndpoint.TryParse(text, anyPort: false, out server, out string error))
                {
                    throw new CommandException(error, ExitCode.Usage);
                }
            }

            CheckWorkDirectory(settings.WorkDirectory);
            BackgroundFill fill = CriuOptions.ReadBackground(result.GetRequiredValue(background));
            return CriuService.RunAsync(settings, service =>
            {
                LazyRestore Listen(IRestoreKeeper? keeper) => LazyRestore.Listen(
                    settings.ImagesDirectory, settings.WorkDirectory, server?.ToLocal(onlyLoopback: false), fill, service.Logger, result.GetValue(bandwidth), keeper);
                LazyRestore Resume(TakenRestore taken) => LazyRestore.Resume(
                    settings.ImagesDirectory,
                    settings.WorkDirectory,
                    server?.ToLocal(onlyLoopback: false),
                    fill,
                    service.Logger,
                    result.GetValue(bandwidth),
                    taken.Keeper,
                    taken.Record,
                    taken.Descriptors);
                return Task.FromResult(Serve(service, settings, server, result.GetValue(holder), result.GetValue(resume), Listen, Resume, result.GetValue(json)));
            });
        });
        return command;
    }

    /// <summary>The restore finds the daemon's socket there.</summary>
    private static void CheckWorkDirectory(string directory)
    {
        if (!Directory.Exists(directory))
        {
            throw new CommandException($"There is no work directory {directory}. Make it first, or give the one of the restore with --work-dir.");
        }

        if (Encoding.UTF8.GetByteCount(LazyRestore.SocketPathIn(directory)) is > CommonOptions.LongestSocketPath and var bytes)
        {
            throw new CommandException(
                $"'{LazyRestore.SocketPathIn(directory)}' has {bytes} bytes; a UNIX socket's path has 1 to {CommonOptions.LongestSocketPath}. Give a shorter --work-dir, here and to the restore, such as /tmp/work.", ExitCode.Usage);
        }
    }

    private static int Serve(
        CriuService service,
        CriuSettings settings,
        NetworkEndpoint? server,
        string? holder,
        bool isResumed,
        Func<IRestoreKeeper?, LazyRestore> listen,
        Func<TakenRestore, LazyRestore> resume,
        bool json)
    {
        try
        {
            TakenRestore? taken = isResumed ? TakenRestore.Take(holder!, settings.WorkDirectory) : null;
            using RestoreKeeper? keeper = taken is not null ? taken.Keeper : holder is not null ? new RestoreKeeper(holder, settings.WorkDirectory) : null;
            using LazyRestore restore = taken is not null ? resume(taken) : listen(keeper);
            using var end = new LazyEnd(restore);
            service.TellReady(json ? null : isResumed ? "Goes on with the restore." : "Waits for a restore.");
            var report = LazyReport.Of(restore.Serve());
            if (!settings.IsInBackground)
            {
                Console.Out.WriteLine(json ? JsonSerializer.Serialize(report, CliJson.Default.LazyReport) : report.ToText());
            }

            return ExitCode.Done;
        }
        catch (SocketException failure)
        {
            throw new CommandException($"Could not connect to the page server {server}: {CriuService.Reason(failure)}. Start it first, with --lazy-pages.");
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException)
        {
            throw new CommandException($"Could not serve the restore: {failure.Message}");
        }
    }
}
