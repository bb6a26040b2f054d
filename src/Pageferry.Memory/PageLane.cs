using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// The way in for the pages that one thread receives. It claims pages, lends a buffer for their content, and has them placed.
/// </summary>
/// <remarks>
/// The buffer stays in the CPU's cache from the socket to the copy into guest memory. A lane is used by one thread; one that takes pages in for several memories may have a buffer for all of
/// its lanes.
/// </remarks>
public sealed class PageLane : IDisposable
{
    /// <summary>The most pages one <see cref="Begin"/> lends a buffer for.</summary>
    public const int MaxPages = 256;

    /// <summary>The size of a lane's buffer.</summary>
    public const int BufferBytes = MaxPages * Page.Size;

    private readonly FaultEngine _engine;
    private readonly MappedRegion _buffer;
    private readonly bool _isOwned;
    private readonly Lock _placing;
    private ulong _page;
    private ulong _count;
    private ulong _requested;

    internal PageLane(FaultEngine engine, NativeBuffer? buffer)
    {
        _engine = engine;
        _placing = engine.Placing.Assign();
        _isOwned = buffer is null;
        _buffer = buffer?.Region ?? MappedRegion.MapAnonymous(BufferBytes);

        // Populated now: the first page to arrive is one that a guest waits for.
        _buffer.Advise(0, BufferBytes, MemoryAdvice.PopulateWrite);
    }

    /// <summary>Room for the content of <see cref="MaxPages"/> pages, for <see cref="Place"/> and <see cref="Refresh"/>.</summary>
    public Span<byte> Buffer => _buffer.Span(0, BufferBytes);

    /// <summary>Claims pages whose content is about to be received.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many are about to come, from that page on; at least 1.</param>
    /// <param name="buffer">Where to put the content of as many pages as were claimed, or are to be drained.</param>
    /// <returns>
    /// Above zero: that many pages are claimed; fill the buffer, then call <see cref="Complete"/> or <see cref="Abandon"/>.
    /// Below zero: the content of that many pages is not wanted, since they were removed or are here already; fill the buffer to drain it
    /// and go on.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is empty or not within the memory.</exception>
    /// <exception cref="InvalidOperationException">The pages claimed before were neither completed nor abandoned.</exception>
    public int Begin(ulong page, int count, out Span<byte> buffer)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        if (_count != 0)
        {
            throw new InvalidOperationException("The pages claimed before were neither completed nor abandoned.");
        }

        ulong most = (ulong)Math.Min(count, MaxPages);
        int unwanted;
        do
        {
            _page = page;
            _count = _engine.States.Claim(page, most, PageState.Arriving, out _requested);
            if (_count != 0)
            {
                int claimed = (int)_count;
                buffer = _buffer.Span(0, claimed * Page.Size);
                return claimed;
            }

            // Zero when another lane abandoned the page just now: it can be claimed after all.
            unwanted = (int)_engine.States.CountUnclaimable(page, most);
        }
        while (unwanted == 0);

        buffer = _buffer.Span(0, unwanted * Page.Size);
        return -unwanted;
    }

    /// <summary>Places the pages claimed: their content is whole. Who waits for them goes on.</summary>
    public void Complete()
    {
        ulong count = _count;
        _count = 0;
        _engine.Arrivals.PlaceClaimed(_page, count, _buffer, 0, _requested, _placing);
    }

    /// <summary>Gives the pages claimed back: their content did not arrive, and whatever is in the buffer is never shown to the guest.</summary>
    public void Abandon()
    {
        ulong count = _count;
        _count = 0;
        _engine.Arrivals.Abandon(_page, count);
    }

    /// <summary>Places pages whose content is in <see cref="Buffer"/>, as far as they are wanted.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <param name="at">Which page of the buffer the content begins with.</param>
    /// <returns>How many were wanted; the others were removed, or are here already.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory, or the content not within the buffer.</exception>
    public int Place(ulong page, int count, int at) => (int)_engine.Arrivals.Place(page, CheckedCount(count, at), _buffer, (ulong)at * Page.Size, _placing);

    /// <summary>
    /// Gives pages the content that is in <see cref="Buffer"/>, whatever they had before. Only before the guest runs, and each page by one lane at a time.
    /// </summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <param name="at">Which page of the buffer the content begins with.</param>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory, or the content not within the buffer.</exception>
    public void Refresh(ulong page, int count, int at) => _engine.Arrivals.Refresh(page, CheckedCount(count, at), _buffer, (ulong)at * Page.Size, _placing);

    /// <summary>Makes pages zero, whatever they had before; see <see cref="Refresh"/>.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    public void RefreshZero(ulong page, ulong count) => _engine.Arrivals.RefreshZero(page, count);

    /// <summary>Takes the news that pages are zero. They take no memory until the guest touches them.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <returns>How many of them were still unknown; the others were removed or are here already.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    public ulong Zero(ulong page, ulong count)
    {
        ulong learned = 0;
        ulong done = 0;
        while (done < count)
        {
            ulong claimed = _engine.Arrivals.ClaimZero(page + done, count - done);
            learned += claimed;
            done += claimed != 0 ? claimed : _engine.States.CountUnclaimable(page + done, count - done);
        }

        return learned;
    }

    /// <summary>Gives the lane's own buffer back, and the pages claimed, if any.</summary>
    public void Dispose()
    {
        if (_count != 0)
        {
            Abandon();
        }

        if (_isOwned)
        {
            _buffer.Dispose();
        }
    }

    private ulong CheckedCount(int count, int at)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(at);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, MaxPages - at);
        return _count == 0 ? (ulong)count : throw new InvalidOperationException("The pages claimed before were neither completed nor abandoned.");
    }
}
