using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What pages were sent with last, as many as fit, to tell the next time what changed. One sender's, which sends all versions of its pages.</summary>
/// <remarks>Each page has one place, which it gets unless the page that has it was sent in this round or in the one before: a guest that writes more than fits here would otherwise find nothing.</remarks>
internal sealed class SentContent : IDisposable
{
    private readonly NativeBuffer _content;
    private readonly ulong _senders;
    private readonly ulong[] _pages;
    private readonly uint[] _sentIn;

    /// <param name="bytes">How much content to hold: a multiple of the page size.</param>
    /// <param name="senders">How many senders there are: each has every so many-th stripe of pages.</param>
    internal SentContent(int bytes, int senders)
    {
        _senders = (ulong)senders;
        _content = new NativeBuffer(bytes);
        _pages = new ulong[bytes / Page.Size];
        _sentIn = new uint[bytes / Page.Size];
    }

    /// <summary>The content that a page was sent with.</summary>
    /// <returns>The page's content, to be changed when it is sent again; empty if it isn't held.</returns>
    internal Span<byte> Find(ulong page)
    {
        ulong slot = SlotOf(page);
        return _sentIn[slot] != 0 && _pages[slot] == page ? Content(slot) : [];
    }

    /// <summary>Holds the content that a page is sent with, if its place is free.</summary>
    /// <param name="page">The page.</param>
    /// <param name="generation">The round; at least 1.</param>
    /// <param name="content">The content.</param>
    internal void Keep(ulong page, uint generation, ReadOnlySpan<byte> content)
    {
        ulong slot = SlotOf(page);
        if (_pages[slot] == page || _sentIn[slot] + 1 < generation)
        {
            _pages[slot] = page;
            _sentIn[slot] = generation;
            content.CopyTo(Content(slot));
        }
    }

    /// <summary>A page was sent as zero, or otherwise not kept.</summary>
    internal void Forget(ulong page)
    {
        ulong slot = SlotOf(page);
        _sentIn[slot] = _pages[slot] == page ? 0 : _sentIn[slot];
    }

    public void Dispose() => _content.Dispose();

    /// <summary>Counts the sender's own pages alone: those of others would leave most places empty.</summary>
    private ulong SlotOf(ulong page) =>
        ((page / BackgroundSender.PagesPerStripe / _senders * BackgroundSender.PagesPerStripe) + (page % BackgroundSender.PagesPerStripe)) % (ulong)_pages.Length;

    private Span<byte> Content(ulong slot) => _content.Span((int)slot * Page.Size, Page.Size);
}
