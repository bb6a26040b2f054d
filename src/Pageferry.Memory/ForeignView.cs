using System.Runtime.InteropServices;

namespace Pageferry.Memory;

/// <summary>
/// Where the pages of another process's memory are in that process now. It moves them and unmaps them as it likes; their numbers stay. Changed with all
/// placing locks held, read with one. A look-up takes O(log n), with a hundred thousand ranges too.
/// </summary>
internal sealed class ForeignView
{
    /// <summary>The address of pages that were unmapped.</summary>
    internal const ulong Nowhere = 0;

    /// <summary>The end of user space on x86-64 with five levels of page tables.</summary>
    internal const ulong UserSpaceEnd = 1UL << 56;

    /// <summary>What a piece takes where the view is written.</summary>
    internal const int SegmentBytes = 3 * sizeof(ulong);

    /// <summary>What is mapped, ascending by address.</summary>
    private readonly List<Segment> _byAddress;

    /// <summary>All pages, ascending by number, with those that were unmapped.</summary>
    private readonly List<Segment> _byPage;

    /// <summary>Ranges that pages were moved out of and whose unmapping was not told yet: their ends by their beginnings. <c>MREMAP_DONTUNMAP</c> leaves one behind.</summary>
    private readonly Dictionary<ulong, ulong> _left = [];

    /// <summary>Every page is at its guest physical address.</summary>
    internal ForeignView(GuestAddresses addresses)
    {
        _byAddress = [.. addresses.Regions.Select(region => new Segment(region.Gpa, addresses.OffsetOf(region.Gpa, 1) / Page.Size, region.Length / Page.Size))];
        _byPage = [.. _byAddress];
    }

    /// <summary>Every page is where it is in a process that forks now.</summary>
    internal ForeignView(ForeignView parent)
    {
        _byAddress = [.. parent._byAddress];
        _byPage = [.. parent._byPage];
    }

    private ForeignView(List<Segment> byPage)
    {
        _byPage = byPage;
        _byAddress = [.. byPage.Where(static segment => segment.Address != Nowhere).OrderBy(static segment => segment.Address)];
    }

    /// <summary>How many pieces all pages are in.</summary>
    internal int Segments => _byPage.Count;

    /// <summary>The addresses of all pages that are mapped.</summary>
    internal IReadOnlyList<GuestRegion> Mapped => [.. _byAddress.Select(static segment => new GuestRegion(segment.Address, segment.Count * Memory.Page.Size))];

    /// <summary>Reads what <see cref="Write"/> wrote.</summary>
    /// <param name="bytes">That.</param>
    /// <param name="ranges">What the pages are numbered by.</param>
    /// <exception cref="InvalidDataException">It can't be where the pages of these ranges are.</exception>
    internal static ForeignView Read(ReadOnlySpan<byte> bytes, IReadOnlyList<GuestRegion> ranges)
    {
        Segment[] byPage = MemoryMarshal.Cast<byte, Segment>(bytes).ToArray();
        ulong pages = ranges.Aggregate(0UL, static (sum, range) => sum + (range.Length / Memory.Page.Size));
        ulong next = 0;
        bool isWhole = true;
        foreach (Segment segment in byPage)
        {
            isWhole &= segment.Page == next && segment.Count > 0 && segment.Count <= pages - next && segment.Address % Memory.Page.Size == 0
                && segment.Address < UserSpaceEnd && segment.Count <= (UserSpaceEnd - segment.Address) / Memory.Page.Size;
            next = isWhole ? next + segment.Count : pages;
        }

        var view = new ForeignView([.. byPage]);
        for (int i = 1; i < view._byAddress.Count; i++)
        {
            isWhole &= view._byAddress[i - 1].End <= view._byAddress[i].Address;
        }

        return isWhole && next == pages ? view : throw new InvalidDataException($"It is damaged: {byPage.Length} pieces don't make the {pages} pages of the process.");
    }

    /// <summary>Writes where every page is.</summary>
    /// <param name="bytes">Where to: <see cref="SegmentBytes"/> for each piece.</param>
    internal void Write(Span<byte> bytes) => MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(_byPage)).CopyTo(bytes);

    /// <summary>The next pages within a range of addresses.</summary>
    /// <param name="address">Where to begin; becomes the first address behind the pages found.</param>
    /// <param name="end">The first address behind the range.</param>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <returns>False if there are none.</returns>
    internal bool TryNext(ref ulong address, ulong end, out ulong page, out ulong count)
    {
        int at = FirstEndingAfter(address);
        if (at == _byAddress.Count || Math.Max(address, _byAddress[at].Address) >= end)
        {
            (page, count) = (0, 0);
            return false;
        }

        Segment segment = _byAddress[at];
        ulong from = Math.Max(address, segment.Address);
        address = Math.Min(end, segment.End);
        page = segment.Page + ((from - segment.Address) / Page.Size);
        count = (address - from) / Page.Size;
        return true;
    }

    /// <summary>Where a page is.</summary>
    /// <param name="page">The page.</param>
    /// <param name="count">How many pages lie in one piece from there on.</param>
    /// <returns>Its address, or <see cref="Nowhere"/>.</returns>
    internal ulong AddressOf(ulong page, out ulong count)
    {
        Segment segment = _byPage[IndexOfPage(page)];
        ulong within = page - segment.Page;
        count = segment.Count - within;
        return segment.Address == Nowhere ? Nowhere : segment.Address + (within * Page.Size);
    }

    /// <summary>Pages were unmapped.</summary>
    internal void Unmap(ulong start, ulong end)
    {
        (int first, int behind) = Isolate(start, end);
        for (int i = first; i < behind; i++)
        {
            MoveTo(_byAddress[i], Nowhere);
        }

        _byAddress.RemoveRange(first, behind - first);
    }

    /// <summary>Pages were moved, over whatever was there.</summary>
    internal void Move(ulong from, ulong to, ulong length)
    {
        Unmap(to, to + length);
        (int first, int behind) = Isolate(from, from + length);
        List<Segment> moved = _byAddress.GetRange(first, behind - first);
        _byAddress.RemoveRange(first, behind - first);
        foreach (ref Segment segment in CollectionsMarshal.AsSpan(moved))
        {
            segment = segment with { Address = segment.Address - from + to };
            MoveTo(segment, segment.Address);
        }

        _byAddress.InsertRange(FirstEndingAfter(to), moved);
        _left[from] = from + length;
    }

    /// <summary>Whether an unmapping is what a move ends with: what was there is elsewhere since <see cref="Move"/>. Once for each move.</summary>
    internal bool IsEndOfMove(ulong start, ulong end) => _left.TryGetValue(start, out ulong known) && end <= known && _left.Remove(start);

    /// <summary>Splits what crosses the ends of a range.</summary>
    /// <returns>What lies within it, by index.</returns>
    private (int First, int Behind) Isolate(ulong start, ulong end)
    {
        Split(start);
        Split(end);
        return (FirstEndingAfter(start), FirstNotBefore(end));
    }

    private void Split(ulong address)
    {
        int at = FirstEndingAfter(address);
        if (at == _byAddress.Count || _byAddress[at].Address >= address)
        {
            return;
        }

        Segment whole = _byAddress[at];
        ulong count = (address - whole.Address) / Page.Size;
        Segment head = whole with { Count = count };
        var tail = new Segment(address, whole.Page + count, whole.Count - count);
        int atPage = IndexOfPage(whole.Page);
        _byAddress[at] = head;
        _byPage[atPage] = head;
        _byAddress.Insert(at + 1, tail);
        _byPage.Insert(atPage + 1, tail);
    }

    private void MoveTo(Segment segment, ulong address) => _byPage[IndexOfPage(segment.Page)] = segment with { Address = address };

    private int FirstEndingAfter(ulong address)
    {
        int low = 0;
        for (int high = _byAddress.Count; low < high;)
        {
            int middle = (low + high) / 2;
            (low, high) = _byAddress[middle].End <= address ? (middle + 1, high) : (low, middle);
        }

        return low;
    }

    private int FirstNotBefore(ulong address)
    {
        int at = FirstEndingAfter(address);
        return at < _byAddress.Count && _byAddress[at].Address < address ? at + 1 : at;
    }

    private int IndexOfPage(ulong page)
    {
        int low = 0;
        for (int high = _byPage.Count; low < high;)
        {
            int middle = (low + high) / 2;
            (low, high) = _byPage[middle].Page + _byPage[middle].Count <= page ? (middle + 1, high) : (low, middle);
        }

        return low;
    }

    /// <summary>Pages in one piece, by number and by address.</summary>
    private readonly record struct Segment(ulong Address, ulong Page, ulong Count)
    {
        internal ulong End => Address + (Count * Memory.Page.Size);
    }
}
