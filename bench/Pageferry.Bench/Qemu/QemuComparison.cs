using System.Text.Json.Nodes;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>The same guest moved by Pageferry and by QEMU, alternately, over loopback TCP.</summary>
internal sealed class QemuComparison : IDisposable
{
    private readonly string _qemu;
    private readonly int _rounds;
    private readonly int _mebibytes;
    private readonly Comparison _comparison;
    private readonly ComparisonTable _table = new();
    private readonly string _folder = Directory.CreateTempSubdirectory("pageferry-beside-qemu-").FullName;

    private QemuComparison(string name, string qemu, int rounds, int mebibytes)
    {
        _qemu = qemu;
        _rounds = rounds;
        _mebibytes = mebibytes;
        _comparison = new Comparison(name, rounds);
        _comparison.Add("qemu", JsonValue.Create(Comparison.Run([qemu, "--version"]).Split('\n')[0]));
        _comparison.Add("mebibytes", JsonValue.Create(mebibytes));
        BenchCertificates.Make(_folder);
    }

    /// <summary>Measures everything, prints a table and stores the results.</summary>
    /// <param name="qemu">QEMU's command.</param>
    /// <param name="rounds">Rounds of each, but of downtime.</param>
    /// <param name="downtimes">Rounds of downtime.</param>
    /// <param name="mebibytes">The guest's memory.</param>
    /// <param name="only">What to measure: background, tls, demand or downtime. Null for everything.</param>
    public static int Compare(string qemu, int rounds, int downtimes, int mebibytes, string? only)
    {
        PeerProcess.FavourThisProcess();
        bool byKvm = MoveSettings.HasKvm;
        string name = byKvm ? "qemu" : "qemu-without-kvm";
        using var comparison = new QemuComparison(only is null ? name : $"{name}-{only}", qemu, rounds, mebibytes);
        (string Name, Action Measure)[] parts =
        [
            ("background", comparison.Background),
            ("tls", comparison.Secured),
            ("demand", comparison.Demand),
            ("downtime", () => comparison.Downtime(downtimes)),
        ];
        foreach ((string part, Action measure) in parts.Where(part => only is null || part.Name == only))
        {
            if (part == "downtime" && !byKvm)
            {
                Console.Error.WriteLine("downtime: left out, since a guest that makes memory dirty at a given rate needs /dev/kvm");
                continue;
            }

            measure();
        }

        comparison._table.Print(Console.Out);
        comparison._comparison.Add("table", comparison._table.ToJson());
        comparison._comparison.Store();
        return 0;
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>The whole memory of a guest that stands still, by post-copy over one connection.</summary>
    private void Background()
    {
        var settings = new MoveSettings { Mebibytes = _mebibytes, IsPaused = true };
        string[] stream = Comparison.Twin("stream", $"{_mebibytes}");
        foreach (GuestBacking backing in (GuestBacking[])[GuestBacking.Anonymous, GuestBacking.Memfd])
        {
            string kind = backing == GuestBacking.Anonymous ? "anonymous memory" : "memfd";
            string[] floor = Comparison.Twin("postcopy_floor", $"{_mebibytes}", backing == GuestBacking.Anonymous ? "anonymous" : "memfd");
            Series ours = Alternate($"background_{backing}", settings with { Backing = backing }, _rounds, out Series qemu, out Series[] beside, stream, floor);
            const string Rate = "mib_per_s";
            (double rate, double most) = (ours.Median(Rate), beside[1].Median(Rate));
            _table.Add($"background throughput, {kind}, MiB/s", rate, qemu.Median(Rate), "x of QEMU's", rate / qemu.Median(Rate), atLeast: 3);
            _table.Add("the same of C programs that only send and place", most, qemu.Median(Rate), "x of QEMU's", most / qemu.Median(Rate));
            _table.Add($"background throughput, {kind}, beside a raw stream, MiB/s", rate, beside[0].Median(Rate), "of the stream", rate / beside[0].Median(Rate), atLeast: 0.7);
            _table.Add("the same of C programs that only send and place", most, beside[0].Median(Rate), "of the stream", most / beside[0].Median(Rate));
            foreach (string side in (string[])["source", "destination"])
            {
                string figure = $"{side}_cpu_ms_per_gib";
                (double cpu, double least) = (ours.Median(figure), beside[1].Median(figure));
                _table.Add($"{side} CPU, {kind}, ms per GiB", cpu, qemu.Median(figure), "x of QEMU's", cpu / qemu.Median(figure), atMost: 1);
                _table.Add("the same of C programs that only send and place", least, qemu.Median(figure), "x of QEMU's", least / qemu.Median(figure));
            }
        }
    }

    /// <summary>The same under TLS with two connections. QEMU has two for pre-copy only: it sends the memory of the guest, which stands still, by that.</summary>
    private void Secured()
    {
        var settings = new MoveSettings { Mebibytes = _mebibytes, IsPaused = true, IsSecured = true, Connections = 2 };
        string[] stream = Comparison.Twin("tls_stream", [$"{_mebibytes}", Path.Combine(_folder, "server-cert.pem"), Path.Combine(_folder, "server-key.pem")], "-lssl", "-lcrypto");
        Series ours = Alternate("background_tls", settings, _rounds, out Series qemu, out Series[] beside, stream);
        double rate = ours.Median("mib_per_s");
        _table.Add("TLS, 2 connections, MiB/s (QEMU: multifd pre-copy)", rate, qemu.Median("mib_per_s"), "x of QEMU's", rate / qemu.Median("mib_per_s"));
        _table.Add("the same beside a raw TLS stream, MiB/s", rate, beside[0].Median("mib_per_s"), "of the stream", rate / beside[0].Median("mib_per_s"), atLeast: 0.5);
    }

    /// <summary>How long a guest waits that touches pages in pseudo-random order: while background pages come as fast as they can, and while hardly any do.</summary>
    private void Demand()
    {
        var loaded = new MoveSettings { Mebibytes = _mebibytes, Touches = true };
        MoveSettings alone = loaded with { MaxPostcopyBandwidth = 1 << 20, Window = TimeSpan.FromSeconds(2) };
        Series ours = Alternate("demand_under_load", loaded, _rounds, out Series qemu, out _);
        Series oursAlone = Alternate("demand_alone", alone, _rounds, out Series qemuAlone, out _);
        // What each side says itself, and what the guest saw of it: that it waits for a CPU after its page has come counts too.
        (string Of, string Figures)[] views = MoveSettings.HasKvm ? [("", "own/fault"), (", by the guest's clock", "guest/stall")] : [("", "own/fault")];
        foreach ((string of, string figures) in views)
        {
            foreach (string name in (string[])["mean", "p99"])
            {
                string figure = $"{figures}_{name}_us";
                _table.Add($"demand fault under background load{of}, {name}, µs", ours.Median(figure), qemu.Median(figure), "x of QEMU's", ours.Median(figure) / qemu.Median(figure), atMost: 0.5);
                _table.Add($"demand fault without background{of}, {name}, µs", oursAlone.Median(figure), qemuAlone.Median(figure), "x of QEMU's", oursAlone.Median(figure) / qemuAlone.Median(figure));
                double ratio = ours.Median(figure) / oursAlone.Median(figure);
                _table.Add($"loaded over alone{of}, {name}: QEMU's ratio beside it", ratio, qemu.Median(figure) / qemuAlone.Median(figure), "with load over without", ratio, atMost: 2);
            }
        }
    }

    /// <summary>How long a guest stands still that makes memory dirty, when that is bounded.</summary>
    private void Downtime(int rounds)
    {
        var settings = new MoveSettings { Mebibytes = _mebibytes, Mode = MigrationMode.Auto, DirtyMebibytes = 200 };
        Series ours = Alternate("downtime", settings, rounds, out Series qemu, out _);
        double within = ours.Count("stop_ms", stopped => stopped <= settings.DowntimeLimitMs);
        _table.Add($"runs of {rounds} within {settings.DowntimeLimitMs} ms, 200 MiB/s dirtied", within, qemu.Count("stop_ms", stopped => stopped <= settings.DowntimeLimitMs), "of the runs", within / rounds, atLeast: 1);
        _table.Add("the guest stood still, median, ms", ours.Median("stop_ms"), qemu.Median("stop_ms"), "x of QEMU's", ours.Median("stop_ms") / qemu.Median("stop_ms"));
        _table.Add("the guest stood still, most, ms", ours.Most("stop_ms"), qemu.Most("stop_ms"), "x of QEMU's", ours.Most("stop_ms") / qemu.Most("stop_ms"));
    }

    private Series Alternate(string name, MoveSettings settings, int rounds, out Series qemu, out Series[] beside, params string[][] twins)
    {
        // Both sides' memory, and some.
        ulong populated = 3UL * (ulong)settings.Mebibytes << 20;
        string image = BenchGuest.MakeImage(_folder, settings);
        string rom = BenchGuest.MakeRom(_folder, image, settings.Mebibytes);
        (Series ours, qemu, beside) = (new Series(), new Series(), [.. twins.Select(_ => new Series())]);
        for (int round = 0; round < rounds; round++)
        {
            Comparison.Populate(populated);
            ours.Add(MoveRun.Measure(settings, () => new PageferryPair(_folder, image, settings)));
            Comparison.Populate(populated);
            qemu.Add(MoveRun.Measure(settings, () => new QemuPair(_qemu, _folder, rom, settings)));
            for (int i = 0; i < twins.Length; i++)
            {
                Comparison.Populate(populated);
                beside[i].Add(JsonNode.Parse(Comparison.Run(twins[i]))!);
            }

            Console.Error.Write('.');
        }

        Console.Error.WriteLine($" {name}");
        _comparison.Add(name, new JsonObject { ["pageferry"] = ours.ToJson(), ["qemu"] = qemu.ToJson(), ["beside"] = new JsonArray([.. beside.Select(runs => (JsonNode)runs.ToJson())]) });
        return ours;
    }
}
