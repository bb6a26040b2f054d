using System.Diagnostics;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>The same process restored lazily with Pageferry's daemon and with CRIU's own, alternately.</summary>
internal sealed class CriuComparison
{
    private const string PipeMaxSize = "/proc/sys/fs/pipe-max-size";
    private const string AllIn = "all_in_ms";
    private const string First = "first_instruction_ms";
    private const string Cpu = "daemon_cpu_ms_per_gib";

    private readonly string _pageferry;
    private readonly string _criu;
    private readonly string _folder;
    private readonly int _mebibytes;
    private readonly Comparison _comparison;
    private readonly ComparisonTable _table = new();
    private readonly Series _floor = new();
    private readonly MovedProcess _process;
    private readonly CriuRun _run;
    private readonly string _images;

    private CriuComparison(string pageferry, string criu, string folder, int rounds, int mebibytes)
    {
        (_pageferry, _criu, _mebibytes) = (Path.GetFullPath(pageferry), criu, mebibytes);
        _comparison = new Comparison("criu", rounds);
        _comparison.Add("criu", JsonValue.Create(Comparison.Run([criu, "--version"]).Split('\n')[0]));
        _comparison.Add("mebibytes", JsonValue.Create(mebibytes));
        _folder = folder;
        _images = Path.Combine(folder, "images");
        _process = MovedProcess.Start(folder, mebibytes);
        _process.Dump(criu, _images);
        _run = new CriuRun(criu, folder, _images, mebibytes);
    }

    /// <summary>Measures, prints a table and stores the results.</summary>
    /// <param name="pageferry">Pageferry's command.</param>
    /// <param name="criu">CRIU's command.</param>
    /// <param name="rounds">Rounds of restores from local images.</param>
    /// <param name="remoteRounds">Rounds of restores from a page server, which take CRIU's daemon minutes; 0 for none.</param>
    /// <param name="mebibytes">The process's memory.</param>
    public static int Compare(string pageferry, string criu, int rounds, int remoteRounds, int mebibytes)
    {
        string folder = Directory.CreateTempSubdirectory("pageferry-beside-criu-").FullName;
        try
        {
            var comparison = new CriuComparison(pageferry, criu, folder, rounds, mebibytes);
            using MovedProcess process = comparison._process;
            comparison.Local(rounds);
            if (remoteRounds > 0)
            {
                comparison.FromServers(remoteRounds);
            }

            comparison._table.Print(Console.Out);
            comparison._comparison.Add("table", comparison._table.ToJson());
            comparison._comparison.Store();
            return 0;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private void FromServers(int rounds)
    {
        string pipes = File.ReadAllText(PipeMaxSize);
        try
        {
            // CRIU's servers can't send what doesn't fit into a pipe.
            File.WriteAllText(PipeMaxSize, "4194304");
            Remote(rounds);
            Live(rounds);
        }
        finally
        {
            File.WriteAllText(PipeMaxSize, pipes);
        }
    }

    /// <summary>The process's memory twice, and some.</summary>
    private ulong Populated => 3UL * (ulong)_mebibytes << 20;

    /// <summary>From images on this host; and beside both what no daemon can save: the restore itself, and the process's own way over pages that are all there.</summary>
    private void Local(int rounds)
    {
        (Series ours, Series theirs) = (new Series(), new Series());
        string[] twin = Comparison.Twin("lazy_floor", $"{_mebibytes}", Directory.EnumerateFiles(_images, "pages-*.img").MaxBy(file => new FileInfo(file).Length)!);
        TakeTurns(
            "local",
            rounds,
            () => ours.Add(MeasureLocal(_pageferry, "criu")),
            () => theirs.Add(MeasureLocal(_criu)),
            () =>
            {
                Comparison.Populate(Populated);
                _floor.Add(JsonNode.Parse(Comparison.Run(twin))!.AsObject());
            });
        _comparison.Add("local", new JsonObject { ["rounds"] = rounds, ["pageferry"] = ours.ToJson(), ["criu"] = theirs.ToJson(), ["floor"] = _floor.ToJson() });
        AddAllIn("local", ours, theirs, atLeast: 5);
        AddCommon("local", ours, theirs);
        double filling = _floor.Median("filling_cpu_ms") * 1024 / _mebibytes;
        _table.Add("the same of a C program that only fills, and answers no fault", filling, theirs.Median(Cpu), "x of CRIU's", filling / theirs.Median(Cpu));
    }

    /// <summary>Each daemon with the page server of its own kind, as they are used, and CRIU's with ours besides: there the daemons alone differ.</summary>
    private void Remote(int rounds)
    {
        string[] server = [_pageferry, "criu", "page-server", "--lazy-pages", "-D", _images];
        (Series ours, Series theirs, Series mixed) = (new Series(), new Series(), new Series());
        TakeTurns(
            "remote",
            rounds,
            () => ours.Add(MeasureRemote(server, _pageferry, "criu")),
            () => theirs.Add(MeasureRemote([_criu, "page-server", "--lazy-pages", "-D", _images, "-v2", "-o", "page-server.log", "--address", "127.0.0.1"], _criu)),
            () => mixed.Add(MeasureRemote(server, _criu)));
        _comparison.Add("remote", new JsonObject { ["rounds"] = rounds, ["pageferry"] = ours.ToJson(), ["criu"] = theirs.ToJson(), ["criu_from_pageferry"] = mixed.ToJson() });
        AddAllIn("remote", ours, theirs, atLeast: 20);
        _table.Add("the same, CRIU's daemon from Pageferry's server", ours.Median(AllIn), mixed.Median(AllIn), "x faster", mixed.Median(AllIn) / ours.Median(AllIn));
        const string Stall = "stall_p99_us";
        _table.Add("remote: the process's stall per page, p99, µs", ours.Median(Stall), theirs.Median(Stall), "x of CRIU's", ours.Median(Stall) / theirs.Median(Stall), atMost: 1 / 3.0);
        AddCommon("remote", ours, theirs);
    }

    /// <summary>Each daemon with CRIU's own way of moving a process that runs: a dump that serves what it left in the process.</summary>
    private void Live(int rounds)
    {
        (Series ours, Series theirs) = (new Series(), new Series());
        TakeTurns("live", rounds, () => ours.Add(MeasureLive(_pageferry, "criu")), () => theirs.Add(MeasureLive(_criu)));
        _comparison.Add("live", new JsonObject { ["rounds"] = rounds, ["pageferry"] = ours.ToJson(), ["criu"] = theirs.ToJson() });
        AddAllIn("from criu dump --lazy-pages", ours, theirs, atLeast: 20);
        AddCommon("from criu dump --lazy-pages", ours, theirs);
    }

    private JsonObject MeasureLocal(params string[] daemon)
    {
        Comparison.Populate(Populated);
        return _run.Measure(_process, [.. daemon, "lazy-pages"]);
    }

    private JsonObject MeasureRemote(string[] serverCommand, params string[] daemon)
    {
        Comparison.Populate(Populated);
        int port = FreePort();
        return Measure(_run, _process, CriuRun.Start([.. serverCommand, "--port", $"{port}"]), port, daemon);
    }

    private JsonObject MeasureLive(params string[] daemon)
    {
        string folder = Directory.CreateDirectory(Path.Combine(_folder, "live")).FullName;
        try
        {
            Comparison.Populate(Populated);
            using MovedProcess process = MovedProcess.Start(folder, _mebibytes);
            string images = Path.Combine(folder, "images");
            int port = FreePort();
            return Measure(new CriuRun(_criu, folder, images, _mebibytes), process, process.DumpLazily(_criu, images, port), port, daemon);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static JsonObject Measure(CriuRun run, MovedProcess process, Process server, int port, string[] daemon)
    {
        using (server)
        {
            try
            {
                CriuRun.Await(() => server.HasExited || IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Any(listener => listener.Port == port), "the page server to listen");
                return run.Measure(process, [.. daemon, "lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", $"{port}"]);
            }
            finally
            {
                server.Kill();
                server.WaitForExit();
            }
        }
    }

    private static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }

    /// <summary>Below it what could be reached: a daemon that takes no time leaves the restore, and the process's own way over its pages.</summary>
    private void AddAllIn(string where, Series ours, Series theirs, double atLeast)
    {
        (double time, double beside) = (ours.Median(AllIn), theirs.Median(AllIn));
        _table.Add($"{where}: all pages in, random access, ms", time, beside, "x faster", beside / time, atLeast);
        double least = Math.Min(ours.Median(First), theirs.Median(First)) + _floor.Median("own_pass_ms");
        _table.Add("the same of a daemon that takes no time", least, beside, "x faster", beside / least);
    }

    private void AddCommon(string where, Series ours, Series theirs)
    {
        _table.Add($"{where}: command to the process's first instruction, ms", ours.Median(First), theirs.Median(First), "x of CRIU's", ours.Median(First) / theirs.Median(First), atMost: 1);
        _table.Add($"{where}: daemon CPU, ms per GiB", ours.Median(Cpu), theirs.Median(Cpu), "x of CRIU's", ours.Median(Cpu) / theirs.Median(Cpu), atMost: 0.5);
    }

    /// <summary>Measures in turns, in the other order each time: what one leaves behind is not always the same one's to find.</summary>
    private static void TakeTurns(string name, int rounds, params ReadOnlySpan<Action> measurements)
    {
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < measurements.Length; i++)
            {
                measurements[round % 2 == 0 ? i : measurements.Length - 1 - i]();
            }

            Console.Error.Write('.');
        }

        Console.Error.WriteLine($" {name}");
    }
}
