using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Bench;

/// <summary>A fault that is answered in the same process: what the engine adds to the kernel's own cost.</summary>
internal static class LocalFault
{
    private const string Pages = "32768";

    /// <summary>Alternates the engine with the same loop in C, on one CPU and on two.</summary>
    public static int Compare(int rounds)
    {
        var comparison = new Comparison("local-fault", rounds);
        string[] twin = Comparison.Twin("local_fault", Pages);
        string[] ours = Comparison.Ours("local-fault-once", Pages);
        _ = comparison.Alternate("one_cpu", ["taskset", "-c", "0", .. ours], ["taskset", "-c", "0", .. twin], "mean_ns");
        _ = comparison.Alternate("free", ours, twin, "mean_ns");
        comparison.Store();
        return 0;
    }

    /// <summary>Touches pages one after the other and prints the percentiles of the wait, like the twin.</summary>
    public static int RunOnce(ulong pages)
    {
        using var memory = GuestMemory.Create(pages * Page.Size);
        using var engine = new FaultEngine(memory);
        var source = new ImmediateSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        source.Lane = lane;

        var waits = new long[pages];
        Span<byte> touched = stackalloc byte[1];
        long begin = Stopwatch.GetTimestamp();
        for (ulong page = 0; page < pages; page++)
        {
            long start = Stopwatch.GetTimestamp();
            memory.ReadAsGuest(page * Page.Size, touched);
            waits[page] = Stopwatch.GetTimestamp() - start;
        }

        long total = Stopwatch.GetTimestamp() - begin;
        Array.Sort(waits);
        Console.WriteLine($$"""{"mean_ns":{{total / (long)pages}},"p50_ns":{{waits[pages / 2]}},"p99_ns":{{waits[pages * 99 / 100]}}}""");
        return 0;
    }

    /// <summary>Answers on the reader thread, as the twin does.</summary>
    private sealed class ImmediateSource : IPageSource
    {
        private readonly byte[] _content = [.. Enumerable.Repeat((byte)42, Page.Size)];

        public PageLane? Lane { get; set; }

        public void Request(ReadOnlySpan<ulong> pages)
        {
            foreach (ulong page in pages)
            {
                if (Lane!.Begin(page, 1, out Span<byte> buffer) > 0)
                {
                    _content.CopyTo(buffer);
                    Lane.Complete();
                }
            }
        }
    }
}
