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
        comparison.Alternate("one_cpu", "mean_ns", ["taskset", "-c", "0", .. ours], ["taskset", "-c", "0", .. twin]);
        comparison.Alternate("free", "mean_ns", ours, twin);
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

        Waits.Print(memory, pages);
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
