using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>A page source that has every page at hand and answers at once, on the thread that asks, or after a delay.</summary>
/// <param name="firstPage">The number of the memory's first page, over all slices.</param>
/// <param name="delay">How long it takes for each page.</param>
internal sealed class LocalPageSource(ulong firstPage, TimeSpan delay) : IPageSource, IDisposable
{
    /// <summary>One per reader thread; taken while it is used.</summary>
    private PageLane?[] _lanes = [];

    /// <summary>Makes the ways in, once the engine has started.</summary>
    /// <param name="engine">The engine that asks.</param>
    /// <param name="readers">How many of its threads may ask at once.</param>
    internal void Open(FaultEngine engine, int readers) => _lanes = [.. Enumerable.Range(0, readers).Select(_ => engine.CreateLane())];

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        PageLane lane = Take(out int at);
        foreach (ulong page in pages)
        {
            if (delay > TimeSpan.Zero)
            {
                CurrentThread.Sleep(delay);
            }

            if (lane.Begin(page, 1, out Span<byte> buffer) > 0)
            {
                PagingContent.Write(firstPage + page, buffer);
                lane.Complete();
            }
        }

        Volatile.Write(ref _lanes[at], lane);
    }

    /// <summary>Gives the lanes back, when nobody asks any more.</summary>
    public void Dispose() => Array.ForEach(_lanes, lane => lane?.Dispose());

    private PageLane Take(out int at)
    {
        for (at = 0; ; at = (at + 1) % _lanes.Length)
        {
            if (Interlocked.Exchange(ref _lanes[at], null) is { } lane)
            {
                return lane;
            }
        }
    }
}
