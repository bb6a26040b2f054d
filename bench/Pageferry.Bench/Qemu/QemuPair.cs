using System.Diagnostics;
using System.Text.Json.Nodes;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>
/// The guest in QEMU, which moves it as fast as it can: no bandwidth limit, and after the switchover a connection of their own for pages that are
/// asked for. Its several connections (multifd) are for pre-copy.
/// </summary>
internal sealed class QemuPair : IMovingPair
{
    /// <summary>A pre-copy that has not ended by then goes on by post-copy.</summary>
    private static readonly TimeSpan s_mostPrecopy = TimeSpan.FromSeconds(20);

    private static readonly TimeSpan s_lookInterval = TimeSpan.FromMilliseconds(100);

    private const long Unlimited = 1L << 40;

    private readonly MoveSettings _settings;
    private readonly string _folder;
    private readonly QmpClient _source;
    private readonly QmpClient _destination;
    private readonly string _address;
    private long _began;

    /// <summary>Starts both.</summary>
    /// <param name="qemu">QEMU's command.</param>
    /// <param name="folder">For sockets and files, with the certificates.</param>
    /// <param name="rom">The guest.</param>
    /// <param name="settings">What is to be moved and how.</param>
    public QemuPair(string qemu, string folder, string rom, MoveSettings settings)
    {
        _settings = settings;
        _folder = folder;
        Source = Start(qemu, rom, "source", "client", []);
        Destination = Start(qemu, rom, "destination", "server", settings.IsPaused ? ["-incoming", "defer", "-S"] : ["-incoming", "defer"]);
        _source = QmpClient.Connect(SocketOf("source"));
        _destination = QmpClient.Connect(SocketOf("destination"));
        Set(_source, []);
        Set(_destination, IsMultifd ? [] : ["postcopy-blocktime"]);
        _ = _destination.Run("migrate-incoming", new JsonObject { ["uri"] = "tcp:127.0.0.1:0" });
        _address = $"tcp:127.0.0.1:{_destination.Run("query-migrate")["socket-address"]![0]!["port"]}";
        _ = Source.Expect(BenchGuest.Filled);
    }

    public PeerProcess Source { get; }

    public PeerProcess Destination { get; }

    private bool IsMultifd => _settings.Connections > 1;

    public void Pause() => _source.Run("stop");

    public void Begin()
    {
        _began = Stopwatch.GetTimestamp();
        _ = _source.Run("migrate", new JsonObject { ["uri"] = _address });
        if (_settings.Mode == MigrationMode.Postcopy && !IsMultifd)
        {
            _ = _source.AwaitMigration("active");
            _ = _source.Run("migrate-start-postcopy");
        }
    }

    public void End()
    {
        if (_settings.Mode == MigrationMode.Auto)
        {
            bool isActive = true;
            while (isActive && Stopwatch.GetElapsedTime(_began) < s_mostPrecopy)
            {
                Thread.Sleep(s_lookInterval);
                isActive = _source.Run("query-migrate")["status"]!.GetValue<string>() is "setup" or "active";
            }

            if (isActive)
            {
                _ = _source.Run("migrate-start-postcopy");
            }
        }

        _ = _source.AwaitMigration("completed");
        _ = _destination.AwaitMigration("completed");
    }

    public void BreakOff()
    {
        // It refuses to read memory as long as some is missing.
        _ = _destination.Run("stop");
        _ = _source.Run("migrate-set-parameters", new JsonObject { ["max-postcopy-bandwidth"] = 0 });
        End();
    }

    public byte[] Read(ulong gpa, int bytes)
    {
        _ = _destination.Run("stop");
        string file = Path.Combine(_folder, "memory");
        _ = _destination.Run("pmemsave", new JsonObject { ["val"] = gpa, ["size"] = bytes, ["filename"] = file });
        return File.ReadAllBytes(file);
    }

    public JsonObject Report()
    {
        JsonNode destination = _destination.Run("query-migrate").DeepClone();
        return new JsonObject
        {
            ["source"] = _source.Run("query-migrate").DeepClone(),
            ["destination"] = destination,
            ["fault_mean_us"] = Math.Round((destination["postcopy-latency"]?.GetValue<long>() ?? 0) / 1000.0, 1),
            ["fault_p99_us"] = P99([.. destination["postcopy-latency-dist"]?.AsArray().Select(bucket => bucket!.GetValue<long>()) ?? []]),
        };
    }

    public void Dispose()
    {
        Source.Dispose();
        Destination.Dispose();
        _source.Dispose();
        _destination.Dispose();
    }

    /// <summary>Of faults counted by doubling: those of bucket N took 2^N µs and more. What is told is the least that it can be.</summary>
    private static double P99(long[] buckets)
    {
        long beyond = buckets.Sum() / 100;
        int bucket = buckets.Length - 1;
        for (long seen = 0; bucket > 0 && (seen += buckets[bucket]) <= beyond; bucket--)
        {
        }

        return 1L << Math.Max(bucket, 0);
    }

    private string SocketOf(string side) => Path.Combine(_folder, $"{side}.qmp");

    private PeerProcess Start(string qemu, string rom, string side, string endpoint, string[] more)
    {
        string[] memory = _settings.Backing == GuestBacking.Memfd
            ? ["-object", $"memory-backend-memfd,id=memory,size={_settings.Mebibytes}M,share=on", "-machine", "memory-backend=memory"]
            : [];
        string[] security = _settings.IsSecured ? ["-object", $"tls-creds-x509,id=tls,dir={_folder},endpoint={endpoint},verify-peer=on"] : [];
        return PeerProcess.Start(
        [
            qemu, "-machine", "pc", "-accel", MoveSettings.HasKvm ? "kvm" : "tcg", "-m", $"{_settings.Mebibytes}", "-nodefaults", "-vga", "none", "-display", "none", "-no-reboot", "-bios", rom,
            "-chardev", "stdio,id=console,signal=off", "-device", "isa-debugcon,iobase=0xe9,chardev=console", "-qmp", $"unix:{SocketOf(side)},server=on,wait=off",
            .. memory, .. security, .. more,
        ]);
    }

    private void Set(QmpClient side, string[] more)
    {
        string[] capabilities = IsMultifd ? ["events", "multifd"] : ["events", "postcopy-ram", "postcopy-preempt", .. more];
        _ = side.Run("migrate-set-capabilities", new JsonObject
        {
            ["capabilities"] = new JsonArray([.. capabilities.Select(name => new JsonObject { ["capability"] = name, ["state"] = true })]),
        });
        var parameters = new JsonObject
        {
            ["max-bandwidth"] = Unlimited,
            ["max-postcopy-bandwidth"] = _settings.MaxPostcopyBandwidth,
            ["downtime-limit"] = _settings.DowntimeLimitMs,
            ["multifd-channels"] = _settings.Connections,
        };
        if (_settings.IsSecured)
        {
            parameters["tls-creds"] = "tls";
        }

        _ = side.Run("migrate-set-parameters", parameters);
    }
}
