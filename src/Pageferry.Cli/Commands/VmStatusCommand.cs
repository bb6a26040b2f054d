using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm status</c>: how a guest is.</summary>
internal static class VmStatusCommand
{
    /// <summary>How soon a process is asked again that answered a watcher once: one of an earlier version, or that ends.</summary>
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(200);

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        Option<bool> json = CommonOptions.Json();
        Option<bool> watch = new("--watch") { Description = "Go on until the process ends or you do; with --json, an object per second. Fails if the guest did not end or move by then." };
        var command = new Command("status", "Show how a guest is.") { control, watch, json };
        examples[command] = ["pageferry vm status --control /tmp/guest.sock", "pageferry vm status --control /tmp/guest.sock --watch"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            if (result.GetValue(watch))
            {
                return await WatchAsync(client, result.GetValue(json), cancellation);
            }

            VmStatus status = await client.StatusAsync(cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json) ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus) : VmStatusText.Of(status));
            return ExitCode.Done;
        });
        return command;
    }

    private static async Task<int> WatchAsync(ControlClient client, bool json, CancellationToken cancellation)
    {
        var display = new MigrationDisplay(Console.Out, !Console.IsOutputRedirected, json);
        VmStatus? last = null;
        await display.ShowAsync(async () =>
        {
            try
            {
                while (true)
                {
                    await foreach (ControlAnswer answer in client.AskAsync(new ControlRequest { Command = ControlRequest.Status, Watch = true }, cancellation))
                    {
                        last = answer.Status!;
                        display.Update(last);
                    }

                    await Task.Delay(s_interval, cancellation);
                }
            }
            catch (CommandException) when (last is not null)
            {
                // It has ended. One that was killed had no last word.
                display.Update(last, isLast: true);
            }
        });
        if (last!.State is not (VmState.Moved or VmState.Ended))
        {
            throw new CommandException($"Process {last.Pid} ended, and the guest's state there was '{last.State}' when it was last seen{(last.Error is { } error ? $": {error}" : ".")}");
        }

        if (!json)
        {
            await Console.Out.WriteLineAsync($"Process {last.Pid} ended.");
        }

        return ExitCode.Done;
    }
}
