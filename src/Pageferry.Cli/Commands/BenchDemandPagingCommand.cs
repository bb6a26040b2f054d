using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary><c>pageferry bench demand-paging</c>: how fast vCPUs get the pages that they touch first.</summary>
internal static class BenchDemandPagingCommand
{
    private const int MostReaders = 64;
    private const int MostDelayUs = 10_000_000;
    private const int LeastRounds = 5;
    private const int MostRounds = 1000;
    private const ulong DefaultBytes = 64UL << 20;

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<int> vcpus = CommonOptions.Vcpus();
        vcpus.Aliases.Add("-v");
        Option<MemorySize> bytes = CommonOptions.Size("--bytes", "Memory that each vCPU touches: a number and K, M, G or T; without a unit, MiB.", DefaultBytes);
        bytes.Aliases.Add("-b");
        Option<string> backing = CommonOptions.Backing();
        var userfault = new Option<string>("--userfault", "-u")
        {
            Description = "missing: content is copied in. minor: it is in the memfd and gets mapped.",
            HelpName = "KIND",
            DefaultValueFactory = _ => UserfaultWord.Missing,
            CustomParser = result => CommonOptions.Choice(result, UserfaultWord.Missing, UserfaultWord.Minor),
        };
        var delivery = new Option<string>("--delivery")
        {
            Description = "How a page is got: none (it is there), queue (userfaultfd), exit (of the vCPU).",
            HelpName = "KIND",
            DefaultValueFactory = _ => PagingDeliveryWord.Queue,
            CustomParser = result => CommonOptions.Choice(result, PagingDeliveryWord.None, PagingDeliveryWord.Queue, PagingDeliveryWord.Exit),
        };
        var userfaultfds = new Option<string>("--userfaultfds")
        {
            Description = "one for all memory, or per-vcpu (default; with --overlap: one).",
            HelpName = "COUNT",
            CustomParser = result => CommonOptions.Choice(result, UserfaultfdsWord.One, UserfaultfdsWord.PerVcpu),
        };
        Option<int> readers = CommonOptions.Number("--readers", "Threads that read each userfaultfd.", 1, MostReaders, 1);
        readers.Aliases.Add("-r");
        Option<int> delay = CommonOptions.Number("--delay", "Microseconds that the page source takes for each page.", 0, MostDelayUs, 0);
        delay.Aliases.Add("-d");
        var overlap = new Option<bool>("--overlap", "-o") { Description = "All vCPUs touch the same memory, each in an order of its own." };
        var cpus = new Option<int[]>("--cpus", "-c")
        {
            Description = "CPUs for the vCPUs and then the readers, in turn, such as 0,1.",
            HelpName = "LIST",
            DefaultValueFactory = _ => [],
            CustomParser = Cpus,
        };
        var compare = new Option<bool>("--compare") { Description = "Alternate all deliveries, and compare their medians." };
        Option<int> rounds = CommonOptions.Number("--rounds", $"Rounds of a comparison, from {LeastRounds} up.", LeastRounds, MostRounds, LeastRounds);
        Option<bool> json = CommonOptions.Json();
        var command = new Command("demand-paging", "Measure how fast vCPUs get the pages that they touch for the first time.")
        {
            vcpus, bytes, backing, userfault, delivery, userfaultfds, readers, delay, overlap, cpus, compare, rounds, json,
        };
        examples[command] =
        [
            "pageferry bench demand-paging",
            "pageferry bench demand-paging -v 2 -u minor --userfaultfds one -r 2",
            "pageferry bench demand-paging --compare --backing anonymous --cpus 0",
        ];
        command.SetAction(result =>
        {
            var options = new PagingOptions(
                result.GetValue(vcpus),
                result.GetValue(bytes).Bytes,
                BackingWord.Parse(result.GetValue(backing)!),
                PagingDeliveryWord.Parse(result.GetValue(delivery)!),
                result.GetValue(userfault) is UserfaultWord.Minor,
                result.GetValue(overlap) || result.GetValue(userfaultfds) is UserfaultfdsWord.One,
                result.GetValue(readers),
                TimeSpan.FromMicroseconds(result.GetValue(delay)),
                result.GetValue(overlap),
                result.GetValue(cpus)!);
            Refuse(
                (result.GetValue(compare) && Given(delivery), "--compare measures every delivery: leave out --delivery."),
                (!result.GetValue(compare) && Given(rounds), "--rounds is for --compare."),
                (IsPopulated() && Given(userfault), "With --delivery none there are no userfaults: leave out --userfault."),
                (IsPopulated() && Given(readers), "With --delivery none nobody reads userfaults: leave out --readers."),
                (IsPopulated() && Given(delay), "With --delivery none nothing is asked for: leave out --delay."),
                (options.IsMinor && options.Backing == GuestBacking.Anonymous, "Anonymous memory has no minor userfaults: choose --backing memfd."),
                (options.IsMinor && Given(delay), "With --userfault minor the page source is not asked: leave out --delay."),
                (options.IsOverlapping && result.GetValue(userfaultfds) is UserfaultfdsWord.PerVcpu, "With --overlap all vCPUs share one userfaultfd: leave out --userfaultfds per-vcpu."));
            Check(options);
            return result.GetValue(compare) ? Compare(options, result.GetValue(rounds), result.GetValue(json)) : Measure(options, result.GetValue(json));

            bool Given(Option option) => result.GetResult(option) is { Implicit: false };

            bool IsPopulated() => !result.GetValue(compare) && options.Delivery == PagingDelivery.None;
        });
        return command;
    }

    private static int Measure(PagingOptions options, bool json)
    {
        PagingResult result = new PagingRun(options).Run();
        PagingReport report = PagingReport.Of(options, result);
        if (json)
        {
            Console.Out.WriteLine(JsonSerializer.Serialize(report, CliJson.Indented.PagingReport));
        }
        else
        {
            var display = new PagingDisplay(Console.Out);
            display.Show(report.Settings, options.Delivery != PagingDelivery.None);
            display.Show(report, result.Latencies);
        }

        return ExitCode.Done;
    }

    private static int Compare(PagingOptions options, int rounds, bool json)
    {
        var display = new PagingDisplay(json ? Console.Error : Console.Out);
        display.Show(PagingSettings.Of(options), hasUserfaults: true);
        var reports = new List<IReadOnlyList<PagingReport>>();
        for (int round = 1; round <= rounds; round++)
        {
            var measured = new List<PagingReport>();
            foreach (PagingDelivery delivery in PagingDeliveryWord.Offered)
            {
                PagingOptions one = options with { Delivery = delivery };
                measured.Add(PagingReport.Of(one, new PagingRun(one).Run()));
                display.Show(round, measured[^1]);
            }

            reports.Add(measured);
        }

        var comparison = PagingComparison.Of(reports);
        if (json)
        {
            Console.Out.WriteLine(JsonSerializer.Serialize(comparison, CliJson.Indented.PagingComparison));
        }
        else
        {
            display.Show(comparison);
        }

        return ExitCode.Done;
    }

    /// <summary>Refuses options that contradict each other.</summary>
    private static void Refuse(params ReadOnlySpan<(bool IsContradiction, string Text)> rules)
    {
        foreach ((bool isContradiction, string text) in rules)
        {
            if (isContradiction)
            {
                throw new CommandException(text, ExitCode.Usage);
            }
        }
    }

    /// <summary>Refuses what this machine can't do before anything is tried.</summary>
    private static void Check(PagingOptions options)
    {
        const ulong Most = BootLayout.MostMemory - BootLayout.LeastMemory;
        if (options.Vcpus > BootLayout.MostVcpus)
        {
            throw new CommandException($"{options.Vcpus} virtual CPUs are more than a guest here can have: at most {BootLayout.MostVcpus}.", ExitCode.Usage);
        }

        if (options.TotalBytes > Most)
        {
            throw new CommandException($"{MemorySize.Format(options.BytesPerVcpu)} for each virtual CPU ({options.Vcpus}) is more memory than a guest here can have: at most {MemorySize.Format(Most)}.", ExitCode.Usage);
        }

        (_, ulong available) = Examination.MemoryInfo();
        if (options.TotalBytes > available)
        {
            throw new CommandException($"The measurement populates {MemorySize.Format((ulong)options.TotalBytes)} of memory, and {MemorySize.FormatMeasured(available)} are available here. Choose fewer --bytes or --vcpus.");
        }

        // Populating goes through a userfaultfd too.
        if (KvmExamination.WhyNot() is { } noKvm)
        {
            throw new CommandException(noKvm);
        }

        if (UserfaultfdExamination.WhyNot(UserfaultfdExamination.NeededFor(options.Backing)) is { } noUserfaultfd)
        {
            throw new CommandException(noUserfaultfd);
        }
    }

    private static int[] Cpus(ArgumentResult result)
    {
        string[] words = result.Tokens[0].Value.Split(',');
        int[] cpus = new int[words.Length];
        for (int i = 0; i < words.Length; i++)
        {
            if (!int.TryParse(words[i], NumberStyles.None, CultureInfo.InvariantCulture, out cpus[i]) || cpus[i] >= CurrentThread.MostCpus)
            {
                result.AddError($"'{result.Tokens[0].Value}' is not a list of CPUs. Write numbers from 0 up with commas between them, such as 0,1.");
                return [];
            }
        }

        return cpus;
    }
}
