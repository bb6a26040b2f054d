using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Bench;

/// <summary>What it takes to arm memory that is in use, beside the one system call that hides or drops as much of it.</summary>
internal static class Arming
{
    private const ulong Bytes = 1UL << 30;
    private const string HugePages = "/proc/sys/vm/nr_hugepages";

    /// <summary>Alternates the two, round by round, on memory that was just populated: each kind of memory, by a userfaultfd and by <c>PROT_NONE</c>.</summary>
    public static int Compare(int rounds)
    {
        var result = new Comparison("arming", rounds);
        string reserved = File.ReadAllText(HugePages);
        File.WriteAllText(HugePages, Math.Max(int.Parse(reserved, CultureInfo.InvariantCulture), (int)(Bytes >> 21)).ToString(CultureInfo.InvariantCulture));
        try
        {
            foreach (GuestBacking backing in (GuestBacking[])[GuestBacking.Memfd, GuestBacking.Memfd2M, GuestBacking.Anonymous])
            {
                foreach (ArmedContent content in Enum.GetValues<ArmedContent>())
                {
                    Compare(result, backing, content, protects: false);
                    if (backing != GuestBacking.Anonymous)
                    {
                        Compare(result, backing, content, protects: true);
                    }
                }
            }
        }
        finally
        {
            File.WriteAllText(HugePages, reserved);
        }

        result.Store();
        return 0;
    }

    private static void Compare(Comparison result, GuestBacking backing, ArmedContent content, bool protects)
    {
        var arm = new List<double>();
        var call = new List<double>();
        for (int round = 0; round < result.Rounds; round++)
        {
            arm.Add(Arm(backing, content, protects));
            call.Add(Call(backing, content, protects));
        }

        double ratio = Comparison.Median(arm) / Comparison.Median(call);
        string title = $"{backing} {content}{(protects ? " PROT_NONE" : "")}";
        result.Add(title, new JsonObject
        {
            ["bytes"] = Bytes,
            ["arm_ms"] = new JsonArray([.. arm.Select(ms => JsonValue.Create(Math.Round(ms, 2)))]),
            ["system_call_ms"] = new JsonArray([.. call.Select(ms => JsonValue.Create(Math.Round(ms, 2)))]),
            ["ratio"] = Math.Round(ratio, 3),
        });
        Console.WriteLine($"arming, {title}: {Comparison.Median(arm):F1} ms, the system call {Comparison.Median(call):F1} ms, {ratio:F2}x");
    }

    private static double Arm(GuestBacking backing, ArmedContent content, bool protects)
    {
        using var memory = GuestMemory.Create(Bytes, backing);
        for (ulong page = 0; page < memory.PageCount; page++)
        {
            memory.WriteAsGuest(page * Page.Size, [1]);
        }

        if (protects)
        {
            memory.RegisterWith(FaultDelivery.Exit, new ProtectionPlacer(memory));
        }

        using var engine = new FaultEngine(memory, delivery: protects ? FaultDelivery.Exit : FaultDelivery.Queue);
        engine.Start(new KeptPages(engine), armed: false);
        var clock = Stopwatch.StartNew();
        _ = engine.Arm(0, Bytes, content: content);
        return clock.Elapsed.TotalMilliseconds;
    }

    /// <summary>
    /// madvise(DONTNEED) for memory whose content stays or has no file, fallocate(PUNCH_HOLE) to drop what a file has; where there is no userfaultfd
    /// mprotect(PROT_NONE) first, which keeps the content.
    /// </summary>
    private static double Call(GuestBacking backing, ArmedContent content, bool protects)
    {
        using MemoryFile? file = backing == GuestBacking.Anonymous ? null : MemoryFile.Create("arming", Bytes, hugePages: backing == GuestBacking.Memfd2M);
        using MappedRegion region = file is null ? MappedRegion.MapAnonymous(Bytes) : MappedRegion.MapShared(file.Descriptor, 0, Bytes);
        for (ulong at = 0; at < Bytes; at += Page.Size)
        {
            region.CopyIn(at, [1]);
        }

        var clock = Stopwatch.StartNew();
        if (protects)
        {
            region.Protect(0, Bytes, MemoryProtection.None);
        }

        if (file is not null && content == ArmedContent.Drop)
        {
            file.PunchHole(0, Bytes);
        }
        else if (!protects)
        {
            region.Advise(0, Bytes, MemoryAdvice.DontNeed);
        }

        return clock.Elapsed.TotalMilliseconds;
    }
}
