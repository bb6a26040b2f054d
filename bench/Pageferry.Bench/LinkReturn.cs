using System.Diagnostics;
using System.Net;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>How long a guest that waits for a page goes on waiting when a link that was lost after the switchover is there again.</summary>
internal static class LinkReturn
{
    private const string Memory = "256M";

    /// <summary>Cuts a link in each round, and gives it back.</summary>
    public static int Measure(int rounds, string pageferry)
    {
        var comparison = new Comparison("link-return", rounds);
        List<(double Found, double Page)> waits = GuestProcesses.Measure(rounds, (a, b) => MeasureOne(pageferry, a, b));
        double[] pages = [.. waits.Select(wait => wait.Page)];
        comparison.Add("memory", JsonValue.Create(Memory));
        comparison.Add("back_to_found_ms", ToJson(waits.Select(wait => wait.Found)));
        comparison.Add("found_to_page_ms", ToJson(pages));
        comparison.Add("median", JsonValue.Create(Math.Round(Comparison.Median(pages), 1)));
        comparison.Store();
        Console.WriteLine($"link-return: from the source's first connection to the first demanded page, in ms: median {Comparison.Median(pages):F0}, longest {pages.Max():F0}; the link was found after up to {waits.Max(wait => wait.Found):F0} ms");
        return 0;
    }

    private static JsonArray ToJson(IEnumerable<double> values) => new([.. values.Select(value => (JsonNode)JsonValue.Create(Math.Round(value, 1)))]);

    private static (double Found, double Page) MeasureOne(string pageferry, string a, string b)
    {
        using Process source = GuestProcesses.Start(pageferry, "vm", "run", "random", "--memory", Memory, "--vcpus", "1", "--control", a);
        Process? destination = null;
        try
        {
            destination = GuestProcesses.Start(pageferry, "vm", "receive", "--listen", "127.0.0.1:0", "--control", b);
            _ = GuestProcesses.Await(a, status => status["passes"]?.GetValue<ulong>() > 0);
            string listen = GuestProcesses.Await(b, static _ => true)["listen"]!.GetValue<string>();
            using var link = new CutLink(IPEndPoint.Parse(listen));

            // Told and not waited for: it ends with the processes.
            using Process migrate = GuestProcesses.Start(pageferry, "vm", "migrate", "--control", a, "--to", $"{link.EndPoint}", "--mode", "postcopy", "--max-postcopy-bandwidth", "16M");
            _ = GuestProcesses.Await(b, status => Phase(status) == "post_copy" && GuestProcesses.Done(status) >= GuestProcesses.Total(status) / 4);
            link.Cut();
            _ = GuestProcesses.Await(a, status => Phase(status) == "postcopy_paused");

            // By then the guest waits for a page that it has not.
            Thread.Sleep(1000);
            ulong before = Demanded(GuestProcesses.Await(b, status => Phase(status) == "postcopy_paused"));
            long back = Stopwatch.GetTimestamp();
            link.GiveBack();
            _ = GuestProcesses.Await(b, status => Demanded(status) > before);
            long page = Stopwatch.GetTimestamp();
            return (Stopwatch.GetElapsedTime(back, link.FoundAt).TotalMilliseconds, Stopwatch.GetElapsedTime(link.FoundAt, page).TotalMilliseconds);
        }
        finally
        {
            source.Kill();
            destination?.Kill();
            destination?.Dispose();
        }
    }

    private static string? Phase(JsonNode status) => status["migration"]?["phase"]?.GetValue<string>();

    private static ulong Demanded(JsonNode status) => status["migration"]?["pages_demand"]?.GetValue<ulong>() ?? 0;
}
