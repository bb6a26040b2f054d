namespace Pageferry.Bench;

/// <summary>
/// A vCPU's userfault by queue, as <c>pageferry bench demand-paging</c> measures it: what the engine adds to the kernel's own cost under KVM.
/// </summary>
internal static class DemandPaging
{
    private const string Mebibytes = "64";

    /// <summary>The memory of two vCPUs, and some.</summary>
    private const ulong Populated = 512UL << 20;

    /// <summary>Alternates the product with the same guest and queue loop in C: each kind of userfault, on one CPU, free, and with two vCPUs.</summary>
    public static int Compare(int rounds, string pageferry)
    {
        var comparison = new Comparison("demand-paging", rounds) { Leave = ["histogram", "settings", "kernel", "ok"] };
        foreach ((string userfault, string backing) in (ReadOnlySpan<(string, string)>)[("missing", "anonymous"), ("missing", "memfd"), ("minor", "memfd")])
        {
            string[] one = Ours(pageferry, userfault, backing, 1);
            string[] oneTwin = Twin(userfault, backing, 1);
            string title = $"{userfault}_{backing}";
            comparison.Alternate($"{title}_one_cpu", "us_per_fault", Populated, ["taskset", "-c", "0", .. one], ["taskset", "-c", "0", .. oneTwin]);
            comparison.Alternate($"{title}_free", "us_per_fault", Populated, one, oneTwin);
            comparison.Alternate($"{title}_2_vcpus", "us_per_fault", Populated, Ours(pageferry, userfault, backing, 2), Twin(userfault, backing, 2));
        }

        foreach (string backing in (ReadOnlySpan<string>)["memfd", "anonymous"])
        {
            // What an exit costs this machine's KVM beside its queue: both are the product's, with the same page source.
            foreach (int vcpus in (ReadOnlySpan<int>)[1, 2])
            {
                comparison.Alternate(
                    $"exit_beside_queue_{backing}_{vcpus}_vcpus",
                    "us_per_fault",
                    Populated,
                    [.. Ours(pageferry, "missing", backing, vcpus), "--delivery", "exit"],
                    [.. Ours(pageferry, "missing", backing, vcpus), "--delivery", "queue"]);
            }
        }

        comparison.Store();
        return 0;
    }

    private static string[] Ours(string pageferry, string userfault, string backing, int vcpus) =>
        [pageferry, "bench", "demand-paging", "--json", "--bytes", $"{Mebibytes}M", "--vcpus", $"{vcpus}", "--userfault", userfault, "--backing", backing];

    private static string[] Twin(string userfault, string backing, int vcpus) =>
        Comparison.Twin("demand_paging", $"{vcpus}", Mebibytes, userfault, backing, "per-vcpu");
}
