using System.Diagnostics;

namespace Pageferry.Memory;

/// <summary>Holds who sends or fetches pages to a rate, all together: who has done so waits until that is paid for.</summary>
/// <param name="bytesPerSecond">The rate; 0 for none.</param>
public sealed class BandwidthLimit(long bytesPerSecond)
{
    /// <summary>What may be sent at once after a pause.</summary>
    private static readonly TimeSpan s_burst = TimeSpan.FromMilliseconds(20);

    private readonly Lock _lock = new();
    private long _paidUntil;

    /// <summary>Takes account of bytes that were sent or fetched, and waits for its turn.</summary>
    /// <param name="bytes">How many.</param>
    public void Pay(long bytes)
    {
        if (bytesPerSecond == 0)
        {
            return;
        }

        TimeSpan wait;
        lock (_lock)
        {
            long now = Stopwatch.GetTimestamp();
            long earliest = now - (long)(s_burst.TotalSeconds * Stopwatch.Frequency);
            _paidUntil = Math.Max(_paidUntil, earliest) + (long)((double)bytes / bytesPerSecond * Stopwatch.Frequency);
            wait = Stopwatch.GetElapsedTime(now, _paidUntil);
        }

        if (wait > TimeSpan.FromMilliseconds(1))
        {
            Thread.Sleep(wait);
        }
    }
}
