using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>How long a guest of 1 GiB, half of which is here, waits for pages when its engine is killed: <c>vm receive --engine separate</c> as a user runs it.</summary>
internal static class EngineRestart
{
    private const string Memory = "1G";

    /// <summary>Kills an engine in each round.</summary>
    public static int Measure(int rounds, string pageferry)
    {
        var comparison = new Comparison("engine-restart", rounds);
        List<double> waits = GuestProcesses.Measure(rounds, (a, b) => MeasureOne(pageferry, a, b));
        comparison.Add("memory", JsonValue.Create(Memory));
        comparison.Add("killed_to_next_page_ms", new JsonArray([.. waits.Select(wait => (JsonNode)JsonValue.Create(Math.Round(wait, 1)))]));
        comparison.Add("median", JsonValue.Create(Math.Round(Comparison.Median(waits), 1)));
        comparison.Store();
        Console.WriteLine($"engine-restart: engine killed to the next page of the guest, in ms: median {Comparison.Median(waits):F0}, longest {waits.Max():F0}");
        return 0;
    }

    private static double MeasureOne(string pageferry, string a, string b)
    {
        using Process source = GuestProcesses.Start(pageferry, "vm", "run", "random", "--memory", Memory, "--vcpus", "1", "--control", a);
        Process? destination = null;
        try
        {
            destination = GuestProcesses.Start(pageferry, "vm", "receive", "--listen", "127.0.0.1:0", "--engine", "separate", "--control", b);
            _ = GuestProcesses.Await(a, status => status["passes"]?.GetValue<ulong>() > 0);
            string listen = GuestProcesses.Await(b, status => status["engine"]?["version"] is not null)["listen"]!.GetValue<string>();

            // Told and not waited for: it ends with the processes.
            using Process migrate = GuestProcesses.Start(pageferry, "vm", "migrate", "--control", a, "--to", listen, "--mode", "postcopy", "--max-postcopy-bandwidth", "64M");
            JsonNode half = GuestProcesses.Await(b, status => status["migration"]?["phase"]?.GetValue<string>() == "post_copy" && GuestProcesses.Done(status) >= GuestProcesses.Total(status) / 2);
            using var engine = Process.GetProcessById(half["engine"]!["pid"]!.GetValue<int>());
            engine.Kill();
            long killed = Stopwatch.GetTimestamp();
            engine.WaitForExit();
            ulong done = GuestProcesses.Done(half);

            // What the new engine says at first is what it found: pages come when that grows.
            ulong found = GuestProcesses.Done(GuestProcesses.Await(b, status => status["engine"]!["restarts"]!.GetValue<int>() == 1 && status["migration"]?["phase"]?.GetValue<string>() == "post_copy" && GuestProcesses.Done(status) > done));
            return found > 0 ? Stopwatch.GetElapsedTime(killed).TotalMilliseconds : throw new InvalidOperationException("No page came.");
        }
        finally
        {
            source.Kill();
            destination?.Kill();
            destination?.Dispose();
        }
    }
}
