using System.Diagnostics;
using System.Text.Json.Nodes;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Bench;

/// <summary>
/// What 2 MiB pages give a guest and what they cost it on the way: its speed on small pages, on those collapsed, and on hugetlb; and the wait for a page that is in
/// another process.
/// </summary>
internal static class PageSizes
{
    private const ulong Bytes = 256 << 20;
    private const ulong DemandPages = (256 << 20) / Page.Size;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_measured = TimeSpan.FromSeconds(2);

    /// <summary>Alternates each kind of memory with the memfd of small pages.</summary>
    public static int Compare(int rounds)
    {
        var comparison = new Comparison("page-sizes", rounds);
        foreach (string guest in (string[])["stamp", "random"])
        {
            foreach (string kind in (string[])["memfd-collapsed", "anonymous-collapsed", "memfd-2m"])
            {
                string small = kind == "anonymous-collapsed" ? "anonymous" : "memfd";
                comparison.Alternate($"{guest}_{kind}", "passes_per_second", Bytes, Guest(guest, kind), Guest(guest, small));
            }
        }

        foreach ((string title, string stride) in (ReadOnlySpan<(string, string)>)[("first_touch_of_each_2m", "512"), ("touch_of_every_page", "1")])
        {
            comparison.Alternate(title, stride == "1" ? "mean_ns" : "p50_ns", DemandPages * Page.Size, Demand(GuestBacking.Memfd2M, stride), Demand(GuestBacking.Memfd, stride));
        }

        comparison.Store();
        return 0;
    }

    /// <summary>Runs a guest and prints how often it goes over its memory in a second.</summary>
    public static int RunOnce(string guest, string kind)
    {
        GuestBacking backing = kind == "memfd-2m" ? GuestBacking.Memfd2M : kind.StartsWith("memfd", StringComparison.Ordinal) ? GuestBacking.Memfd : GuestBacking.Anonymous;
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(Bytes, VcpuCount: 1, backing), GuestImage.Find(guest));
        machine.Start();
        Await(machine, passes: 2);
        var result = new JsonObject();
        if (kind.EndsWith("collapsed", StringComparison.Ordinal))
        {
            long begun = Stopwatch.GetTimestamp();
            machine.Memory.BeginCollapse();
            machine.Memory.Collapse!.Completed.Wait();
            result["collapse_ms"] = Math.Round(Stopwatch.GetElapsedTime(begun).TotalMilliseconds, 1);
            result["collapsed"] = machine.Memory.Collapse.Collapsed;
            result["left"] = machine.Memory.Collapse.Left;
            Await(machine, passes: 2);
        }

        ulong before = machine.Progress.Passes;
        long start = Stopwatch.GetTimestamp();
        Thread.Sleep(s_measured);
        Await(machine, passes: 1);
        result["passes_per_second"] = Math.Round((machine.Progress.Passes - before) / Stopwatch.GetElapsedTime(start).TotalSeconds, 2);
        Console.WriteLine(result.ToJsonString());
        return 0;
    }

    private static void Await(KvmMachine machine, ulong passes)
    {
        ulong until = machine.Progress.Passes + passes;
        if (!SpinWait.SpinUntil(() => machine.Progress.Passes >= until || machine.Progress.Ended, s_patience) || machine.Progress.Ended)
        {
            throw new InvalidOperationException($"The guest did not go on: {machine.Progress}");
        }
    }

    private static string[] Guest(string guest, string kind) => Comparison.Ours("page-sizes-once", guest, kind);

    private static string[] Demand(GuestBacking backing, string stride) => Comparison.Ours("remote-fault-once", $"{DemandPages}", $"{backing}", stride);
}
