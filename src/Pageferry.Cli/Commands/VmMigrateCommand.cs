using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text.Json;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm migrate</c>: moves a guest to a process that receives.</summary>
internal static class VmMigrateCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The control socket of the guest that moves.");
        Option<NetworkEndpoint> to = CommonOptions.Endpoint("--to", "Where 'vm receive' listens; beyond loopback under TLS.", anyPort: false);
        Option<string> mode = CommonOptions.Mode("auto");
        Option<TimeSpan?> downtime = CommonOptions.Time("--downtime-limit", "How long the guest may stand still: a number and ms or s; without a unit, ms. Default: 300ms.", "ms");
        Option<int> connections = CommonOptions.Number("--connections", "Background connections; pages that the guest waits for have one of their own.", 1, MigrationOptions.MostConnections, new MigrationOptions().Connections);
        Option<string> compression = Words("--compression", "How background pages are compressed; auto does what is measured to pay.", "none", "lz4", "zstd", "auto");
        Option<long> bandwidth = CommonOptions.Rate("--max-bandwidth", "Most bytes per second before the switchover: a number and K, M or G; without a unit, M.");
        Option<long> postcopyBandwidth = CommonOptions.Rate("--max-postcopy-bandwidth", "Most bytes per second of background pages after the switchover.");
        Option<TimeSpan?> timeout = CommonOptions.Time("--timeout", "How long pre-copy may take: a number and s, m or h; without a unit, s. Default: as long as it takes.", "s");
        Option<string> onTimeout = Words("--on-timeout", "What happens then: cancel the migration, ignore the downtime limit, or go on by postcopy.", "cancel", "ignore", "postcopy");
        Option<string> dirtyTracking = CommonOptions.DirtyTracking();
        dirtyTracking.Description = "What the guest's writes have to be tracked by, as chosen when it was made; auto: whatever it is.";
        Option<TimeSpan?> reconnectFor = CommonOptions.ReconnectFor("the destination");
        Option<TimeSpan?> linkTimeout = CommonOptions.LinkTimeout();
        Option<bool> resume = new("--resume") { Description = "Go on with a migration that lost its link after the switchover: look for the destination now, at --to." };
        Option<bool> autoConverge = new("--auto-converge") { Description = "Slow the guest down when it writes faster than pre-copy sends (with --mode precopy)." };
        Option<bool> validate = new("--validate") { Description = "Compare a digest of every page on both sides at the end." };
        Option<string?> holder = CommonOptions.Holder("Where a 'pageferry hold' listens: it keeps what the guest is served from, so that 'vm serve' can go on when its process dies.");
        Option<string?> report = CommonOptions.Report();
        Option<bool> json = CommonOptions.Json();
        json.Description = "Write JSON to standard output: an object per second, and one at the end.";
        var command = new Command("migrate", "Move a running guest: its memory before it, after it, or both.")
        {
            control, to, mode, downtime, connections, compression, bandwidth, postcopyBandwidth, timeout, onTimeout, dirtyTracking, autoConverge, validate,
            reconnectFor, linkTimeout, resume, holder, report, json,
        };
        var security = new SecurityOptions(
            command,
            to,
            "The name that the destination's certificate has to be for, if it is another than --to names.",
            "whoever is on the way can read and change the guest",
            without: resume);
        command.Validators.Add(result =>
        {
            if (result.GetValue(resume))
            {
                CommonOptions.RefuseOthers(result, resume, "the migration goes on as it began", control, to, json);
                return;
            }

            // As written: the value of an option that has an error can't be asked for.
            string asked = Word(result, mode) ?? "auto";
            bool mayPostcopy = asked != "precopy" || Word(result, onTimeout) == "postcopy";
            RefuseIdle(result, asked == "postcopy", "--mode postcopy sends nothing before the switchover", bandwidth, timeout, onTimeout);
            RefuseIdle(result, asked != "precopy", "a guest is slowed down with --mode precopy only: auto goes on by post-copy instead", autoConverge);
            RefuseIdle(result, !mayPostcopy, "--mode precopy sends nothing after the switchover", postcopyBandwidth);
            RefuseIdle(result, asked != "postcopy" && Word(result, timeout) is null, "there is no time that could be over without --timeout", onTimeout);
        });
        examples[command] =
        [
            "pageferry vm migrate --control /tmp/a.sock --to 127.0.0.1:4444",
            "pageferry vm migrate --control a.sock --to [::1]:4444 --downtime-limit 50ms",
            "pageferry vm migrate --control a.sock --to b.example:4444 \\\n"
                + "    --tls-cert a-cert.pem --tls-key a-key.pem --tls-ca ca-cert.pem",
        ];
        command.SetAction((result, cancellation) =>
        {
            var settings = new MigrationSettings
            {
                Mode = result.GetValue(mode),
                DowntimeLimitMs = result.GetValue(downtime)?.TotalMilliseconds,
                Connections = result.GetValue(connections),
                Compression = result.GetValue(compression),
                MaxBandwidth = result.GetValue(bandwidth),
                MaxPostcopyBandwidth = result.GetValue(postcopyBandwidth),
                TimeoutMs = result.GetValue(timeout)?.TotalMilliseconds,
                OnTimeout = result.GetValue(onTimeout),
                DirtyTracking = result.GetValue(dirtyTracking),
                ReconnectForMs = result.GetValue(reconnectFor)?.TotalMilliseconds,
                LinkTimeoutMs = result.GetValue(linkTimeout)?.TotalMilliseconds,
                AutoConverge = result.GetValue(autoConverge),
                Validate = result.GetValue(validate),
                Report = result.GetValue(report),
            };
            var request = new ControlRequest
            {
                Command = result.GetValue(resume) ? ControlRequest.Recover : ControlRequest.Migrate,
                To = result.GetRequiredValue(to).ToString(),
                Migration = settings,
                Security = security.Read(result),
                Holder = result.GetValue(holder),
            };
            return RunAsync(result.GetRequiredValue(control), request, result.GetValue(json), cancellation);
        });
        return command;
    }

    private static async Task<int> RunAsync(string control, ControlRequest request, bool json, CancellationToken cancellation)
    {
        using var client = ControlClient.Connect(control);
        MigrationDisplay display = json ? new(Console.Out, isTerminal: false, json) : new(Console.Error, !Console.IsErrorRedirected, json);
        VmStatus? last = null;
        try
        {
            await display.ShowAsync(async () =>
            {
                await foreach (ControlAnswer answer in client.AskAsync(request, cancellation))
                {
                    last = answer.Status;
                    if (last is not null && (!answer.IsLast || !json))
                    {
                        display.Update(last);
                    }
                }
            });
        }
        catch (OperationCanceledException)
        {
            await CancelAsync(control);
            throw;
        }

        if (last?.Migration is not { } migration)
        {
            throw new CommandException($"The guest at {control} did not report its migration to {request.To}.");
        }

        if (last.State == VmState.Leaving && !json)
        {
            await Console.Out.WriteLineAsync($"The destination is looked for at {request.To}. Follow it: pageferry vm status --control {control} --watch");
            return ExitCode.Done;
        }

        string text = json
            ? JsonSerializer.Serialize(last, CliJson.Default.VmStatus)
            : string.Create(CultureInfo.InvariantCulture, $"The guest {(last.Paused == true ? "stands still" : "runs")} at {request.To} and has all its memory: downtime {migration.DowntimeMs:F2} ms, total {migration.TotalMs:N0} ms, {migration.PagesTotal:N0} pages ({migration.PagesPrecopy:N0} pre-copy, {migration.PagesDemand:N0} demand, {migration.PagesBackground:N0} background, {migration.PagesZero:N0} zero), {MemorySize.FormatMeasured(migration.Bytes)}.");
        foreach (string line in json ? [text] : TextWrap.Lines(text, "  ", string.Empty))
        {
            await Console.Out.WriteLineAsync(line);
        }

        if (migration.Report is { } report && !json)
        {
            await Console.Out.WriteLineAsync($"The report is in {report}.");
        }

        if (migration.ReportError is { } reason)
        {
            await Console.Error.WriteLineAsync($"pageferry: {reason}");
        }

        return ExitCode.Done;
    }

    /// <summary>Ctrl-C ends the migration as long as that can be, and else says that it goes on.</summary>
    private static async Task CancelAsync(string control)
    {
        try
        {
            // The other connection is answered when the migration has ended.
            using var client = ControlClient.Connect(control);
            VmStatus status = await client.LastStatusAsync(new ControlRequest { Command = ControlRequest.Cancel }, CancellationToken.None);
            await Console.Error.WriteLineAsync($"pageferry: The migration was cancelled; the guest is {status.State} in process {status.Pid}.");
        }
        catch (CommandException refusal)
        {
            await Console.Error.WriteLineAsync($"pageferry: {refusal.Message} Follow it: pageferry vm status --control {control} --watch");
        }
    }

    private static string? Word(CommandResult result, Option option) => result.GetResult(option) is { Implicit: false, Tokens: [var token] } ? token.Value : null;

    /// <summary>Refuses options that would do nothing: whoever gives one counts on it.</summary>
    private static void RefuseIdle(CommandResult result, bool isIdle, string reason, params Option[] options)
    {
        foreach (Option option in options.Where(option => isIdle && result.GetResult(option) is { Implicit: false }))
        {
            result.AddError($"{option.Name} has no effect here: {reason}. Leave it out.");
        }
    }

    private static Option<string> Words(string name, string description, params string[] words) => new(name)
    {
        Description = description,
        HelpName = string.Join('|', words),
        DefaultValueFactory = _ => words[0],
        CustomParser = result => CommonOptions.Choice(result, words),
    };
}
