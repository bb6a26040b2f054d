using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>How long a guest of 1 GiB, half of which is here, waits for pages when its engine is killed: <c>vm receive --engine separate</c> as a user runs it.</summary>
internal static class EngineRestart
{
    private const string Memory = "1G";

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>Kills an engine in each round.</summary>
    public static int Measure(int rounds, string pageferry)
    {
        var comparison = new Comparison("engine-restart", rounds);
        var waits = new List<double>();
        for (int round = 0; round < rounds; round++)
        {
            DirectoryInfo directory = Directory.CreateTempSubdirectory("pageferry-bench-");
            try
            {
                waits.Add(MeasureOne(pageferry, Path.Combine(directory.FullName, "a"), Path.Combine(directory.FullName, "b")));
                Console.Error.Write('.');
            }
            finally
            {
                directory.Delete(recursive: true);
            }
        }

        Console.Error.WriteLine();
        comparison.Add("memory", JsonValue.Create(Memory));
        comparison.Add("killed_to_next_page_ms", new JsonArray([.. waits.Select(wait => (JsonNode)JsonValue.Create(Math.Round(wait, 1)))]));
        comparison.Add("median", JsonValue.Create(Math.Round(Comparison.Median(waits), 1)));
        comparison.Store();
        Console.WriteLine($"engine-restart: engine killed to the next page of the guest, in ms: median {Comparison.Median(waits):F0}, longest {waits.Max():F0}");
        return 0;
    }

    private static double MeasureOne(string pageferry, string a, string b)
    {
        using Process source = Start(pageferry, "vm", "run", "random", "--memory", Memory, "--vcpus", "1", "--control", a);
        Process? destination = null;
        try
        {
            destination = Start(pageferry, "vm", "receive", "--listen", "127.0.0.1:0", "--engine", "separate", "--control", b);
            _ = Await(a, status => status["passes"]?.GetValue<ulong>() > 0);
            string listen = Await(b, status => status["engine"]?["version"] is not null)["listen"]!.GetValue<string>();

            // Told and not waited for: it ends with the processes.
            using Process migrate = Start(pageferry, "vm", "migrate", "--control", a, "--to", listen, "--mode", "postcopy", "--max-postcopy-bandwidth", "64M");
            JsonNode half = Await(b, status => status["migration"]?["phase"]?.GetValue<string>() == "post_copy" && Done(status) >= Total(status) / 2);
            using var engine = Process.GetProcessById(half["engine"]!["pid"]!.GetValue<int>());
            engine.Kill();
            long killed = Stopwatch.GetTimestamp();
            engine.WaitForExit();
            ulong done = Done(half);

            // What the new engine says at first is what it found: pages come when that grows.
            ulong found = Done(Await(b, status => status["engine"]!["restarts"]!.GetValue<int>() == 1 && status["migration"]?["phase"]?.GetValue<string>() == "post_copy" && Done(status) > done));
            return found > 0 ? Stopwatch.GetElapsedTime(killed).TotalMilliseconds : throw new InvalidOperationException("No page came.");
        }
        finally
        {
            source.Kill();
            destination?.Kill();
            destination?.Dispose();
        }
    }

    private static ulong Done(JsonNode status) => status["migration"]?["pages_done"]?.GetValue<ulong>() ?? 0;

    private static ulong Total(JsonNode status) => status["migration"]!["pages_total"]!.GetValue<ulong>();

    private static Process Start(string pageferry, params string[] arguments)
    {
        var process = Process.Start(new ProcessStartInfo(pageferry, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true })!;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return process;
    }

    private static JsonNode Await(string control, Func<JsonNode, bool> holds)
    {
        long began = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(began) < s_patience)
        {
            if (TryAsk(control) is { } status && holds(status))
            {
                return status;
            }

            Thread.Sleep(1);
        }

        throw new TimeoutException($"Waited {s_patience.TotalSeconds} s: {TryAsk(control)}");
    }

    private static JsonNode? TryAsk(string control)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(control));
        }
        catch (SocketException)
        {
            // It is not there yet.
            return null;
        }

        _ = socket.Send("{\"command\":\"status\"}\n"u8);
        using var reader = new StreamReader(new NetworkStream(socket), Encoding.UTF8);
        return JsonNode.Parse(reader.ReadLine()!)!["status"];
    }
}
