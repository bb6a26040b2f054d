using System.Text.Json.Nodes;
using Pageferry.Memory;

namespace Pageferry.Bench;

/// <summary>What an engine takes beside the guest's memory, by the kernel's account of this process.</summary>
internal static class EngineMemory
{
    /// <summary>Measures a guest of 64 GiB, every page of whose states is touched.</summary>
    public static int Measure()
    {
        const ulong Pages = (64UL << 30) / Page.Size;
        var comparison = new Comparison("engine-memory", 1);
        using var memory = GuestMemory.Create(Pages * Page.Size);
        using (var warm = new FaultEngine(memory))
        {
            GC.Collect();
        }

        long before = Resident();
        using var engine = new FaultEngine(memory);
        _ = engine.States.Claim(0, Pages, PageState.Zero, out _);
        GC.Collect();
        double perPage = (Resident() - before) / (double)Pages;
        comparison.Add("guest_pages", JsonValue.Create(Pages));
        comparison.Add("page_state_bytes", JsonValue.Create(engine.MemoryBytes));
        comparison.Add("resident_bytes_per_page", JsonValue.Create(Math.Round(perPage, 4)));
        comparison.Store();
        Console.WriteLine($"engine-memory: {perPage:F3} bytes of resident memory per guest page");
        return 0;
    }

    private static long Resident() => long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1]) * Environment.SystemPageSize;
}
