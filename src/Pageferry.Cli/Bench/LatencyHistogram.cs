using System.Globalization;

namespace Pageferry.Cli;

/// <summary>How long the guest's touches took, as the guest counted them; told within 6 %.</summary>
internal sealed class LatencyHistogram
{
    private const double MicrosecondsPerSecond = 1e6;
    private const int BarCells = 40;

    /// <summary>Where the bars begin and end, over every power of two: half octaves in round numbers. Before 1 µs there is one bar.</summary>
    private static readonly double[] s_halfOctave = [1, 1.5];

    private readonly long[] _counters;
    private readonly double _microsecondsPerTick;

    /// <summary>Takes what a guest counted.</summary>
    /// <param name="counters">How often each latency came; see <see cref="TouchGuest.LowestOf"/>.</param>
    /// <param name="ticksPerSecond">How often the guest's clock ticks, in Hz.</param>
    internal LatencyHistogram(long[] counters, long ticksPerSecond)
    {
        _counters = counters;
        _microsecondsPerTick = MicrosecondsPerSecond / ticksPerSecond;
        Count = counters.Sum();
    }

    /// <summary>How many touches were counted.</summary>
    internal long Count { get; }

    /// <summary>The latency that a part of the touches did not exceed.</summary>
    /// <param name="part">0 to 1.</param>
    /// <returns>Microseconds; 0 when nothing was counted.</returns>
    internal double At(double part)
    {
        long rank = Math.Max(1, (long)Math.Ceiling(part * Count));
        long seen = 0;
        for (int i = 0; i < _counters.Length; i++)
        {
            seen += _counters[i];
            if (seen >= rank)
            {
                return Math.Round(Middle(i), 2);
            }
        }

        return 0;
    }

    /// <summary>The percentiles that are reported.</summary>
    internal FaultLatency Percentiles() => new(At(0.5), At(0.9), At(0.99), At(0.999), At(1));

    /// <summary>The touches by half octaves of microseconds, from the first that has any to the last.</summary>
    internal IReadOnlyList<LatencyBar> Bars()
    {
        var bars = new SortedDictionary<int, long>();
        for (int i = 0; i < _counters.Length; i++)
        {
            if (_counters[i] > 0)
            {
                int at = BarOf(Middle(i));
                bars[at] = bars.GetValueOrDefault(at) + _counters[i];
            }
        }

        return bars.Count == 0
            ? []
            : [.. Enumerable.Range(bars.First().Key, bars.Last().Key - bars.First().Key + 1).Select(at => new LatencyBar(Edge(at), Edge(at + 1), bars.GetValueOrDefault(at)))];
    }

    /// <summary>Draws the bars, one line each.</summary>
    internal IEnumerable<string> Draw()
    {
        IReadOnlyList<LatencyBar> bars = Bars();
        long most = bars.Count == 0 ? 1 : bars.Max(bar => bar.Count);
        foreach (LatencyBar bar in bars)
        {
            // At least one cell for a bar that has any: the long waits are few, and they matter.
            int cells = (int)Math.Ceiling(bar.Count * (double)BarCells / most);
            yield return string.Create(
                CultureInfo.InvariantCulture,
                $"{Number(bar.FromUs),7} - {Number(bar.ToUs),-7} {new string('#', cells).PadRight(BarCells)} {bar.Count,10} {bar.Count * 100.0 / Count,5:F1} %").TrimEnd();
        }
    }

    private static string Number(double microseconds) => microseconds.ToString("0.##", CultureInfo.InvariantCulture);

    private static int BarOf(double microseconds)
    {
        if (microseconds < 1)
        {
            return -1;
        }

        int octave = (int)Math.Floor(Math.Log2(microseconds));
        return (octave * s_halfOctave.Length) + (microseconds / Math.Pow(2, octave) >= s_halfOctave[1] ? 1 : 0);
    }

    private static double Edge(int bar) => bar < 0 ? 0 : s_halfOctave[bar % s_halfOctave.Length] * Math.Pow(2, bar / s_halfOctave.Length);

    private double Middle(int counter) => (TouchGuest.LowestOf(counter) + TouchGuest.LowestOf(counter + 1)) / 2 * _microsecondsPerTick;
}
