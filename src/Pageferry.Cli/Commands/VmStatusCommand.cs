using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm status</c>: how a guest is.</summary>
internal static class VmStatusCommand
{
    /// <summary>How often a terminal is redrawn.</summary>
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(200);

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        Option<bool> json = CommonOptions.Json();
        Option<bool> watch = new("--watch") { Description = "Go on until the process ends or you do; with --json, an object per second." };
        var command = new Command("status", "Show how a guest is.") { control, watch, json };
        examples[command] = ["pageferry vm status --control /tmp/guest.sock", "pageferry vm status --control /tmp/guest.sock --watch"];
        command.SetAction(async (result, cancellation) =>
        {
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            if (result.GetValue(watch))
            {
                await WatchAsync(client, result.GetValue(json), cancellation);
                return ExitCode.Done;
            }

            VmStatus status = await client.StatusAsync(cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json) ? JsonSerializer.Serialize(status, CliJson.Indented.VmStatus) : VmStatusText.Of(status));
            return ExitCode.Done;
        });
        return command;
    }

    private static async Task WatchAsync(ControlClient client, bool json, CancellationToken cancellation)
    {
        var display = new MigrationDisplay(Console.Out, !Console.IsOutputRedirected, json);
        await display.ShowAsync(async () =>
        {
            while (await client.TryStatusAsync(cancellation) is { } status)
            {
                display.Update(status);
                await Task.Delay(s_interval, cancellation);
            }
        });
    }
}
