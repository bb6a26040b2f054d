using System.CommandLine;
using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary><c>pageferry demo</c>: moves a guest between two processes and shows what happens.</summary>
internal static class DemoCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<MemorySize> memory = CommonOptions.Memory();
        Option<int> vcpus = CommonOptions.Vcpus();
        var guest = new Option<string>("--guest")
        {
            Description = "What runs: stamp, random, or a guest image's path.",
            HelpName = "GUEST",
            DefaultValueFactory = _ => "stamp",
        };
        Option<string> backing = CommonOptions.Backing();
        Option<string> delivery = CommonOptions.Delivery();
        Option<string> privilege = CommonOptions.Privilege();
        Option<string> host = CommonOptions.Host();
        Option<string> mode = CommonOptions.Mode("postcopy");
        Option<string> dirtyTracking = CommonOptions.DirtyTracking();
        Option<string?> report = CommonOptions.Report();
        report.Description = "Write a page with plots for each side: FILE.source.html and FILE.destination.html, where --report is FILE.html.";
        Option<bool> json = CommonOptions.Json();
        var command = new Command("demo", "Move a running guest to another process and show what happens.") { memory, vcpus, guest, backing, delivery, privilege, host, mode, dirtyTracking, report, json };
        examples[command] = ["pageferry demo", "pageferry demo --memory 1G --vcpus 2 --guest random", "pageferry demo --memory 64M --delivery exit --json"];
        command.SetAction((result, cancellation) => RunAsync(
            new DemoOptions(
                result.GetRequiredValue(guest),
                result.GetRequiredValue(memory),
                result.GetRequiredValue(vcpus),
                result.GetRequiredValue(backing),
                result.GetRequiredValue(delivery),
                result.GetRequiredValue(privilege),
                result.GetRequiredValue(host),
                result.GetRequiredValue(mode),
                result.GetRequiredValue(dirtyTracking),
                result.GetValue(report)),
            result.GetValue(json),
            cancellation));
        return command;
    }

    private static async Task<int> RunAsync(DemoOptions options, bool json, CancellationToken cancellation)
    {
        GuestBacking backing = BackingWord.Parse(options.Backing);
        UserfaultfdFeatures needed = UserfaultfdExamination.NeededFor(backing);

        // Delivered as exits, faults need no userfaultfd on memory that has a host view.
        bool needsUserfaultfd = options.Delivery is DeliveryWord.Queue || backing == GuestBacking.Anonymous;
        if (needsUserfaultfd && UserfaultfdExamination.WhyNot(needed) is { } refusal)
        {
            throw new CommandException($"{refusal} Without it a guest moves with --backing {BackingWord.Memfd} --delivery {DeliveryWord.Exit}.");
        }

        if (backing == GuestBacking.GuestMemfd && MemoryExamination.WhyNot(backing, FaultDelivery.Queue) is { } why)
        {
            throw new CommandException(why);
        }

        var display = new DemoDisplay(json ? Console.Error : Console.Out, json ? !Console.IsErrorRedirected : !Console.IsOutputRedirected);
        if (options.Host is HostWord.Auto && KvmExamination.WhyNot() is { } reason)
        {
            display.Say("no KVM", $"The guest runs as ordinary threads: {reason}");
        }

        DemoReport report = await new DemoRun(options, display).RunAsync(cancellation);
        display.Show(report);
        if (json)
        {
            await Console.Out.WriteLineAsync(JsonSerializer.Serialize(report, CliJson.Indented.DemoReport));
        }

        if (report.Error is not null)
        {
            await Console.Error.WriteLineAsync($"pageferry: {report.Error}");
        }

        return report.Ok ? ExitCode.Done : ExitCode.Failure;
    }
}
