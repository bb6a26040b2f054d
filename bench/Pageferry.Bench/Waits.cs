using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Bench;

/// <summary>How long a thread waits for each page that it touches for the first time.</summary>
internal static class Waits
{
    /// <summary>Touches pages one after the other and prints mean and percentiles in nanoseconds.</summary>
    public static void Print(GuestMemory memory, ulong pages)
    {
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
    }
}
