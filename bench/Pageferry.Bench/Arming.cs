using System.Diagnostics;
using System.Text.Json.Nodes;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Bench;

/// <summary>What it takes to arm memory that is in use, beside the one system call that hides or drops as much of it.</summary>
internal static class Arming
{
    private const ulong Bytes = 1UL << 30;

    /// <summary>Alternates the two, round by round, on memory that was just populated.</summary>
    public static int Compare(int rounds)
    {
        var result = new Comparison("arming", rounds);
        foreach (GuestBacking backing in (GuestBacking[])[GuestBacking.Memfd, GuestBacking.Anonymous])
        {
            foreach (ArmedContent content in Enum.GetValues<ArmedContent>())
            {
                var arm = new List<double>();
                var call = new List<double>();
                for (int round = 0; round < rounds; round++)
                {
                    arm.Add(Arm(backing, content));
                    call.Add(Call(backing, content));
                }

                double ratio = Comparison.Median(arm) / Comparison.Median(call);
                result.Add($"{backing} {content}", new JsonObject
                {
                    ["bytes"] = Bytes,
                    ["arm_ms"] = new JsonArray([.. arm.Select(ms => JsonValue.Create(Math.Round(ms, 2)))]),
                    ["system_call_ms"] = new JsonArray([.. call.Select(ms => JsonValue.Create(Math.Round(ms, 2)))]),
                    ["ratio"] = Math.Round(ratio, 3),
                });
                Console.WriteLine($"arming, {backing} {content}: {Comparison.Median(arm):F1} ms, the system call {Comparison.Median(call):F1} ms, {ratio:F2}x");
            }
        }

        result.Store();
        return 0;
    }

    private static double Arm(GuestBacking backing, ArmedContent content)
    {
        using var memory = GuestMemory.Create(Bytes, backing);
        for (ulong page = 0; page < memory.PageCount; page++)
        {
            memory.WriteAsGuest(page * Page.Size, [1]);
        }

        using var engine = new FaultEngine(memory);
        engine.Start(new KeptPages(engine), armed: false);
        var clock = Stopwatch.StartNew();
        _ = engine.Arm(0, Bytes, content: content);
        return clock.Elapsed.TotalMilliseconds;
    }

    /// <summary>madvise(DONTNEED) for memory whose content stays or has no file, fallocate(PUNCH_HOLE) to drop what a file has.</summary>
    private static double Call(GuestBacking backing, ArmedContent content)
    {
        using MemoryFile? file = backing == GuestBacking.Memfd ? MemoryFile.Create("arming", Bytes) : null;
        using MappedRegion region = file is null ? MappedRegion.MapAnonymous(Bytes) : MappedRegion.MapShared(file.Descriptor, 0, Bytes);
        for (ulong at = 0; at < Bytes; at += Page.Size)
        {
            region.CopyIn(at, [1]);
        }

        var clock = Stopwatch.StartNew();
        if (file is not null && content == ArmedContent.Drop)
        {
            file.PunchHole(0, Bytes);
        }
        else
        {
            region.Advise(0, Bytes, MemoryAdvice.DontNeed);
        }

        return clock.Elapsed.TotalMilliseconds;
    }
}
