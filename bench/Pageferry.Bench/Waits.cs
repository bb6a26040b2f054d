using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Bench;

/// <summary>How long a thread waits for each page that it touches for the first time.</summary>
internal static class Waits
{
    /// <summary>Touches pages one after the other, or one in so many, and prints mean and percentiles in nanoseconds.</summary>
    public static void Print(GuestMemory memory, ulong pages, ulong stride = 1)
    {
        ulong touches = pages / stride;
        var waits = new long[touches];
        Span<byte> touched = stackalloc byte[1];
        long begin = Stopwatch.GetTimestamp();
        for (ulong i = 0; i < touches; i++)
        {
            long start = Stopwatch.GetTimestamp();
            memory.ReadAsGuest(i * stride * Page.Size, touched);
            waits[i] = Stopwatch.GetTimestamp() - start;
        }

        long total = Stopwatch.GetTimestamp() - begin;
        Array.Sort(waits);
        Console.WriteLine($$"""{"mean_ns":{{total / (long)touches}},"p50_ns":{{waits[touches / 2]}},"p99_ns":{{waits[touches * 99 / 100]}}}""");
    }
}
