using System.Diagnostics;
using System.Globalization;

namespace Pageferry.Cli;

/// <summary>
/// The demo: a guest runs in one process until it has dirtied all its memory, moves to another process, and runs on there
/// until it has checked every page.
/// </summary>
/// <param name="options">What to move.</param>
/// <param name="display">Who shows it.</param>
internal sealed class DemoRun(DemoOptions options, DemoDisplay display)
{
    /// <summary>Passes on the source before the move: one that writes every page and one that checks it.</summary>
    private const ulong PassesBefore = 2;

    /// <summary>
    /// Passes of each vCPU on the destination. The first one began on the source, so only the ones after it are sure to check every page there.
    /// </summary>
    private const ulong PassesAfter = 3;

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(50);

    /// <summary>Runs the demo.</summary>
    /// <param name="cancellation">Ends it and its processes.</param>
    /// <returns>What it found.</returns>
    /// <exception cref="CommandException">It could not be carried out.</exception>
    internal async Task<DemoReport> RunAsync(CancellationToken cancellation)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory($"pageferry-demo-{Environment.ProcessId}-");
        try
        {
            string sourceControl = Path.Combine(directory.FullName, "source.sock");
            string destinationControl = Path.Combine(directory.FullName, "destination.sock");
            using ChildVm source = ChildVm.Start("source", sourceControl, [
                "vm", "run", options.Guest,
                "--memory", options.Memory.ToString(),
                "--vcpus", options.Vcpus.ToString(CultureInfo.InvariantCulture),
                "--backing", options.Backing,
                "--privilege", options.Privilege,
                "--host", options.Host,
                "--dirty-tracking", options.DirtyTracking]);
            using ChildVm destination = ChildVm.Start("destination", destinationControl, [
                "vm", "receive", "--listen", "127.0.0.1:0", "--delivery", options.Delivery, .. ReportOf("destination") is { } report ? (string[])["--report", report] : []]);
            await source.ConnectAsync(cancellation);
            await destination.ConnectAsync(cancellation);
            return await MigrateAsync(source, destination, cancellation);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private async Task<DemoReport> MigrateAsync(ChildVm source, ChildVm destination, CancellationToken cancellation)
    {
        VmStatus waiting = await destination.StatusAsync(cancellation);
        VmStatus first = await source.StatusAsync(cancellation);
        display.Say("source", $"pid {source.Pid}: guest '{options.Guest}' on {first.Host}, {MemorySize.Format(options.Memory.Bytes)} of {first.Backing} memory, {Count(first.Vcpus ?? 0, "vCPU")}, writes tracked by {first.DirtyTracking}");
        display.Say("destination", $"pid {destination.Pid}: waits on {waiting.Listen}, userfaults by {waiting.Delivery}");

        var clock = Stopwatch.StartNew();
        _ = await WatchAsync(source, PassesBefore, cancellation);
        display.Say("source", string.Create(CultureInfo.InvariantCulture, $"all memory written and checked in {clock.Elapsed.TotalSeconds:F1} s; the guest moves now"));

        VmStatus left = await display.ShowAsync(async () =>
        {
            Task<VmStatus> moving = source.AskApartAsync(new ControlRequest { Command = ControlRequest.Migrate, To = waiting.Listen, Migration = new MigrationSettings { Mode = options.Mode, Report = ReportOf("source") } }, cancellation);
            var patience = new Patience(Patience.Undisturbed);
            while (await Task.WhenAny(moving, Task.Delay(s_pollInterval, cancellation)) != moving)
            {
                cancellation.ThrowIfCancellationRequested();
                VmStatus arriving = await destination.StatusAsync(cancellation);
                patience.Observe(arriving);
                display.Update(arriving);
            }

            VmStatus done = await moving;
            display.Update(await destination.StatusAsync(cancellation));
            return done;
        });

        display.Say("destination", $"the guest runs here and has all its memory; {PassesAfter} passes follow");
        VmStatus arrived = await WatchAsync(destination, PassesAfter, cancellation);
        await SayReportsAsync(left, destination, cancellation);

        // Its source is gone, and may not have said so yet.
        arrived = await destination.AskAsync(new ControlRequest { Command = ControlRequest.Stop, Yes = true }, cancellation);
        return Report(left, arrived);
    }

    private string? ReportOf(string side) => options.Report is null ? null : Path.ChangeExtension(options.Report, $".{side}{ReportFile.Extension}");

    private async Task SayReportsAsync(VmStatus left, ChildVm destination, CancellationToken cancellation)
    {
        if (options.Report is null)
        {
            return;
        }

        VmStatus arrived;
        var patience = new Patience(Patience.Undisturbed);
        while ((arrived = await destination.StatusAsync(cancellation)).Migration is { Report: null, ReportError: null })
        {
            patience.Observe(arrived);
            await Task.Delay(s_pollInterval, cancellation);
        }

        foreach (MigrationStatus? side in (MigrationStatus?[])[left.Migration, arrived.Migration])
        {
            display.Say("report", side?.ReportError ?? side?.Report ?? string.Empty);
        }
    }

    /// <summary>Waits until the guest has ended a number of passes, or has ended itself.</summary>
    private static async Task<VmStatus> WatchAsync(ChildVm child, ulong passes, CancellationToken cancellation)
    {
        var patience = new Patience(Patience.Undisturbed);
        while (true)
        {
            VmStatus status = await child.StatusAsync(cancellation);
            if (status.PassesHere >= passes || status.ExitCode is not null || status.State is VmState.Failed or VmState.Stalled)
            {
                return status;
            }

            patience.Observe(status);
            await Task.Delay(s_pollInterval, cancellation);
        }
    }

    private DemoReport Report(VmStatus left, VmStatus arrived)
    {
        MigrationStatus sent = left.Migration ?? throw new CommandException("The source reported no migration.");
        MigrationStatus received = arrived.Migration ?? throw new CommandException("The destination reported no migration.");
        ulong passesAfter = arrived.PassesHere ?? 0;
        ulong wrong = arrived.PagesWrong ?? 0;
        string? error = arrived switch
        {
            _ when wrong > 0 => $"The guest found {wrong} pages wrong. {arrived.Error}",
            { Error: { } reason } => reason,
            { ExitCode: { } code } when code != 0 => $"The guest ended with code {code}.",
            _ when received.PagesDone < received.PagesTotal => $"Only {received.PagesDone} of {received.PagesTotal} pages arrived.",
            _ when passesAfter < PassesAfter => $"The guest ended {passesAfter} passes on the destination; {PassesAfter} are needed to be sure that it checked every page there.",
            _ => null,
        };
        return new DemoReport
        {
            Ok = error is null,
            Error = error,
            Host = arrived.Host ?? string.Empty,
            Guest = options.Guest,
            MemoryBytes = options.Memory.Bytes,
            Vcpus = options.Vcpus,
            Backing = options.Backing,
            Delivery = arrived.Delivery ?? string.Empty,
            DirtyTracking = left.DirtyTracking ?? string.Empty,
            DowntimeMs = sent.DowntimeMs ?? 0,
            TotalMs = sent.TotalMs,
            PagesTotal = received.PagesTotal,
            PagesPrecopy = sent.PagesPrecopy,
            PagesDemand = sent.PagesDemand,
            PagesBackground = sent.PagesBackground,
            PagesZero = sent.PagesZero,
            PagesChecked = (arrived.PagesChecked ?? 0) - (left.PagesChecked ?? 0),
            PagesWrong = wrong,
            PassesBefore = left.PassesHere ?? 0,
            PassesAfter = passesAfter,
            DemandFaults = received.DemandFaults ?? 0,
            FaultLatencyUs = received.FaultLatencyUs ?? new FaultLatency(0, 0, 0, 0, 0),
            BackgroundMibPerS = sent.BackgroundMibPerS,
            BytesSent = sent.Bytes,
        };
    }

    private static string Count(int number, string what) => number == 1 ? $"1 {what}" : $"{number} {what}s";
}
