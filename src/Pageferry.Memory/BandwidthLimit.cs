using System.Diagnostics;

namespace Pageferry.Memory;

/// <summary>Holds who sends or fetches pages to a rate, all together: who does so waits until what went before is paid for.</summary>
/// <param name="bytesPerSecond">The rate; 0 for none.</param>
public sealed class BandwidthLimit(long bytesPerSecond)
{
    /// <summary>What may be sent at once after a pause.</summary>
    private static readonly TimeSpan s_burst = TimeSpan.FromMilliseconds(20);

    private readonly Lock _lock = new();
    private long _paidUntil;

    /// <summary>Waits until what was sent or fetched before is paid for, and takes account of more.</summary>
    /// <param name="bytes">How many bytes were sent or fetched just now: who pays holds nothing that somebody may begin to wait for.</param>
    /// <param name="ended">Ends the waiting when it completes: nobody waits for a link that is lost. Null for nothing that does.</param>
    public void Pay(long bytes, Task? ended = null)
    {
        if (bytesPerSecond == 0)
        {
            return;
        }

        TimeSpan wait;
        lock (_lock)
        {
            long now = Stopwatch.GetTimestamp();
            long turn = Math.Max(_paidUntil, now - (long)(s_burst.TotalSeconds * Stopwatch.Frequency));
            _paidUntil = turn + (long)((double)bytes / bytesPerSecond * Stopwatch.Frequency);
            wait = Stopwatch.GetElapsedTime(now, turn);
        }

        if (wait <= TimeSpan.FromMilliseconds(1))
        {
            return;
        }

        if (ended is null)
        {
            Thread.Sleep(wait);
        }
        else
        {
            _ = ended.Wait(wait);
        }
    }
}
