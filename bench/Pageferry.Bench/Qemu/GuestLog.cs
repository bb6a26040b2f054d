using System.Buffers.Binary;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>What the guest has measured, read from its memory after its move; the layout stands in <c>bench/qemu/guest.S</c>.</summary>
internal sealed class GuestLog
{
    /// <summary>
    /// A touch at the destination that takes longer has waited for its page. Shorter ones are of pages that were there and had to be mapped for the
    /// guest; the two are far apart.
    /// </summary>
    private const double LeastStallMicroseconds = 20;

    private const ulong Results = 0x20_0000;
    private const ulong Ticks = 0x20_1000;
    private const ulong Slow = 0x40_0000;
    private const int ResultBytes = 40;
    private const int TickBytes = 32;
    private const int SlowBytes = 16;

    private readonly double[] _microseconds;
    private readonly long _touches;
    private readonly long _wrong;
    private readonly double _dirtyMebibytesPerSecond;

    private GuestLog(double[] microseconds, long touches, long wrong, double dirtyMebibytesPerSecond)
    {
        _microseconds = microseconds;
        _touches = touches;
        _wrong = wrong;
        _dirtyMebibytesPerSecond = dirtyMebibytesPerSecond;
    }

    /// <summary>Reads what happened since the guest's last tick at the source.</summary>
    /// <param name="read">Reads guest memory: address, bytes.</param>
    /// <param name="source">What was heard from the guest at the source, whose ticks tell the speed of the guest's clock.</param>
    public static GuestLog Read(Func<ulong, int, byte[]> read, PeerProcess source)
    {
        long[] results = Words(read(Results, ResultBytes));
        long[] ticks = Words(read(Ticks, (int)results[0] * TickBytes));
        long[] slow = results[1] == 0 ? [] : Words(read(Slow, (int)results[1] * SlowBytes));
        int last = source.Ticks - 1;
        int moved = Math.Min(source.Ticks, (int)results[0] - 1);
        double cycles = Tick(last, 0) - Tick(0, 0);
        double perMicrosecond = cycles / (source.LastTick - source.FirstTick).TotalMicroseconds;
        double seconds = cycles / perMicrosecond / 1e6;
        double[] waits = [.. slow.Chunk(2).Skip((int)Tick(moved, 1)).Select(touch => touch[1] / perMicrosecond)];
        return new GuestLog(waits, results[2] - Tick(moved, 2), results[4], (Tick(last, 3) - Tick(0, 3)) * 4096.0 / (1 << 20) / seconds);

        long Tick(int tick, int word) => ticks[(tick * (TickBytes / sizeof(long))) + word];
    }

    /// <summary>For the results.</summary>
    public JsonObject ToJson()
    {
        double[] stalls = [.. _microseconds.Where(wait => wait >= LeastStallMicroseconds).Order()];
        if (_wrong != 0)
        {
            throw new InvalidOperationException($"The guest found {_wrong} pages wrong.");
        }

        // By doubling: fewer than 8 µs, 16, 32 and so on.
        int[] distribution = new int[18];
        foreach (double wait in _microseconds)
        {
            distribution[Math.Clamp((int)Math.Log2(wait) - 2, 0, distribution.Length - 1)]++;
        }

        var json = new JsonObject { ["touches"] = _touches, ["dirty_mib_per_s"] = Math.Round(_dirtyMebibytesPerSecond, 1), ["stalls"] = stalls.Length };
        if (stalls.Length > 0)
        {
            json["stall_mean_us"] = Math.Round(stalls.Average(), 1);
            json["stall_p50_us"] = Math.Round(stalls[stalls.Length / 2], 1);
            json["stall_p99_us"] = Math.Round(stalls[stalls.Length * 99 / 100], 1);
            json["stall_max_us"] = Math.Round(stalls[^1], 1);
            json["slow_touches_below_8_16_32_us"] = new JsonArray([.. distribution.Select(count => (JsonNode)count)]);
        }

        return json;
    }

    private static long[] Words(byte[] bytes)
    {
        var words = new long[bytes.Length / sizeof(long)];
        for (int i = 0; i < words.Length; i++)
        {
            words[i] = BinaryPrimitives.ReadInt64LittleEndian(bytes.AsSpan(i * sizeof(long)));
        }

        return words;
    }
}
