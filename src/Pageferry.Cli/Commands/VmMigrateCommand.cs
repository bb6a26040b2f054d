using System.CommandLine;
using System.Globalization;
using System.Net;
using System.Text.Json;

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
        Option<IPEndPoint> to = CommonOptions.Endpoint("--to", "Where 'vm receive' listens; loopback only.", anyPort: false);
        Option<bool> json = CommonOptions.Json();
        var command = new Command("migrate", "Move a running guest by post-copy.") { control, to, json };
        examples[command] = ["pageferry vm migrate --control /tmp/a.sock --to 127.0.0.1:4444"];
        command.SetAction((result, cancellation) =>
            RunAsync(result.GetRequiredValue(control), result.GetRequiredValue(to), result.GetValue(json), cancellation));
        return command;
    }

    private static async Task<int> RunAsync(string control, IPEndPoint to, bool json, CancellationToken cancellation)
    {
        using var client = ControlClient.Connect(control);
        VmStatus? last = null;
        await foreach (ControlAnswer answer in client.AskAsync(new ControlRequest { Command = ControlRequest.Migrate, To = to.ToString() }, cancellation))
        {
            last = answer.Status;
            if (!json && !answer.IsLast && last?.Migration is { } progress)
            {
                await Console.Error.WriteLineAsync(string.Create(CultureInfo.InvariantCulture, $"{progress.Phase}: {progress.PagesDone:N0} of {progress.PagesTotal:N0} pages, {MemorySize.FormatMeasured(progress.Bytes)}"));
            }
        }

        if (last?.Migration is not { } migration)
        {
            throw new CommandException($"The guest at {control} did not report its migration to {to}.");
        }

        await Console.Out.WriteLineAsync(json
            ? JsonSerializer.Serialize(last, CliJson.Indented.VmStatus)
            : string.Create(CultureInfo.InvariantCulture, $"The guest runs at {to} and has all its memory: downtime {migration.DowntimeMs:F2} ms, total {migration.TotalMs:N0} ms, {migration.PagesTotal:N0} pages ({migration.PagesDemand:N0} demand, {migration.PagesBackground:N0} background, {migration.PagesZero:N0} zero)."));
        return ExitCode.Done;
    }
}
