using System.Globalization;
using System.Net;
using System.Text.Json.Nodes;
using HdrHistogram;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Bench;

/// <summary>A process of <see cref="PageferryPair"/>: a machine and its migration, told what to do on standard input.</summary>
internal static class PageferryPeer
{
    /// <summary>What is said and answered.</summary>
    public const string Port = "port";
    public const string Pause = "pause";
    public const string Paused = "paused";
    public const string Move = "move";
    public const string Moved = "moved";
    public const string Arrived = "arrived";
    public const string ReadMemory = "read";
    public const string Report = "report";

    /// <summary>In place of the guest's image: a thread that goes over the memory in pseudo-random order.</summary>
    public const string ByThread = "thread";

    /// <summary>In place of the certificates' folder.</summary>
    public const string NoCertificates = "-";

    /// <summary>Runs the guest, and moves it away when told to.</summary>
    public static int RunSource(string image, int mebibytes, GuestBacking backing, string certificates)
    {
        using MigrationSecurity? security = Load(certificates, "client");
        var configuration = new MachineConfiguration((ulong)mebibytes << 20, Backing: backing);
        using IMachine machine = image == ByThread ? ThreadMachine.Create(configuration, "random") : KvmMachine.Create(configuration, GuestImage.Find(image));
        machine.ConsoleLine += Console.WriteLine;
        machine.Start();
        if (image == ByThread)
        {
            // It writes each page in its first pass.
            if (!SpinWait.SpinUntil(() => machine.Progress.Passes > 0, PeerProcess.Patience))
            {
                throw new TimeoutException($"The guest did not go over its memory within {PeerProcess.Patience.TotalSeconds} s.");
            }

            Console.WriteLine($"{BenchGuest.Filled}\n{BenchGuest.Tick}");
        }

        bool isPaused = false;
        while (Console.ReadLine()?.Split(' ') is { } told)
        {
            switch (told)
            {
                case [Pause]:
                    machine.Pause();
                    isPaused = true;
                    Console.WriteLine(Paused);
                    break;
                case [Move, var port, var mode, var connections, var downtime, var bandwidth]:
                    var options = new MigrationOptions
                    {
                        Mode = Enum.Parse<MigrationMode>(mode),
                        Connections = int.Parse(connections, CultureInfo.InvariantCulture),
                        DowntimeLimit = TimeSpan.FromMilliseconds(int.Parse(downtime, CultureInfo.InvariantCulture)),
                        MaxPostcopyBandwidth = long.Parse(bandwidth, CultureInfo.InvariantCulture),
                        Security = security,
                    };
                    var source = new MigrationSource(new LeavingGuest(machine, isPaused), options);
                    new Thread(() => MoveTo(source, int.Parse(port, CultureInfo.InvariantCulture))) { IsBackground = true }.Start();
                    break;
                default:
                    throw new InvalidOperationException($"'{string.Join(' ', told)}' is nothing that a source does.");
            }
        }

        return 0;
    }

    /// <summary>Waits for the guest and runs it.</summary>
    public static int RunDestination(string certificates)
    {
        using MigrationSecurity? security = Load(certificates, "server");
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), ArrivingGuest.Prepare, security: security);
        Console.WriteLine($"{Port} {destination.EndPoint.Port}");
        ArrivingGuest? arrived = null;
        var receiving = new Thread(() =>
        {
            destination.Receive(guest => Volatile.Write(ref arrived, (ArrivingGuest)guest));
            Console.WriteLine(Arrived);
        });
        receiving.IsBackground = true;
        receiving.Start();
        while (Console.ReadLine()?.Split(' ') is { } told)
        {
            IMachine machine = (Volatile.Read(ref arrived) ?? throw new InvalidOperationException("No guest has arrived.")).Machine;
            switch (told)
            {
                case [Pause]:
                    machine.Pause();
                    Console.WriteLine(Paused);
                    break;
                case [ReadMemory, var gpa, var bytes, var file]:
                    var content = new byte[int.Parse(bytes, CultureInfo.InvariantCulture)];
                    machine.Memory.Read(ulong.Parse(gpa, CultureInfo.InvariantCulture), content);
                    File.WriteAllBytes(file, content);
                    Console.WriteLine(ReadMemory);
                    break;
                case [Report]:
                    Console.WriteLine($"{Report} {Describe(machine.Engine!.Statistics).ToJsonString()}");
                    break;
                default:
                    throw new InvalidOperationException($"'{string.Join(' ', told)}' is nothing that a destination does.");
            }
        }

        return 0;
    }

    private static void MoveTo(MigrationSource source, int port)
    {
        source.Run(new IPEndPoint(IPAddress.Loopback, port));
        MigrationProgress progress = source.Progress;
        var report = new JsonObject
        {
            ["total_ms"] = Math.Round(progress.Total.TotalMilliseconds, 1),
            ["downtime_ms"] = Math.Round(progress.Downtime.TotalMilliseconds, 2),
            ["pages_precopy"] = progress.PagesPrecopy,
            ["pages_background"] = progress.PagesBackground,
            ["pages_demand"] = progress.PagesDemand,
            ["background_mib_per_s"] = Math.Round(progress.BackgroundMibPerSecond, 1),
            ["bytes"] = progress.BytesSent,
            ["decisions"] = new JsonArray([.. source.Decisions.Select(decision => (JsonNode)decision)]),
        };
        Console.WriteLine($"{Moved} {report.ToJsonString()}");
    }

    /// <summary>The engine's own figures, of faults that needed the source.</summary>
    private static JsonObject Describe(FaultStatistics statistics)
    {
        HistogramBase latencies = statistics.Latencies(FaultCause.Demand);
        latencies.Add(statistics.Latencies(FaultCause.Arriving));
        return latencies.TotalCount == 0 ? new JsonObject { ["faults"] = 0 } : new JsonObject
        {
            ["faults"] = latencies.TotalCount,
            ["mean_us"] = Math.Round(latencies.GetMean() / 1000, 1),
            ["p50_us"] = Math.Round(latencies.GetValueAtPercentile(50) / 1000.0, 1),
            ["p99_us"] = Math.Round(latencies.GetValueAtPercentile(99) / 1000.0, 1),
        };
    }

    private static MigrationSecurity? Load(string folder, string side) => folder == NoCertificates
        ? null
        : MigrationSecurity.Load(Path.Combine(folder, $"{side}-cert.pem"), Path.Combine(folder, $"{side}-key.pem"), Path.Combine(folder, "ca-cert.pem"));
}
