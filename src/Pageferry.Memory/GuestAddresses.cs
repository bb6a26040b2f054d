namespace Pageferry.Memory;

/// <summary>The numbers of pages over the regions of a guest's memory, dense and in the order of the regions. Every look-up takes O(log n).</summary>
internal sealed class GuestAddresses
{
    private readonly GuestRegion[] _regions;
    private readonly ulong[] _firstPages;

    /// <summary>Numbers the pages.</summary>
    /// <param name="regions">Whole units, not empty, ascending, not overlapping.</param>
    /// <param name="unit">Bytes that a region is a multiple of.</param>
    /// <exception cref="ArgumentException">The regions break a rule; the message says which.</exception>
    internal GuestAddresses(IReadOnlyList<GuestRegion> regions, ulong unit)
    {
        _regions = [.. regions];
        _firstPages = new ulong[_regions.Length];
        ulong end = 0;
        for (int i = 0; i < _regions.Length; i++)
        {
            GuestRegion region = _regions[i];
            if (region.Length == 0 || region.Length % unit != 0 || region.Gpa % unit != 0)
            {
                throw new ArgumentException($"A memory region is a number of whole pages of {unit} bytes, not {region.Length} bytes at 0x{region.Gpa:x}.", nameof(regions));
            }

            if (region.Gpa < end || region.Gpa > ulong.MaxValue - region.Length)
            {
                throw new ArgumentException($"Memory regions ascend without overlap; the one of {region.Length} bytes at 0x{region.Gpa:x} does not.", nameof(regions));
            }

            end = region.End;
            _firstPages[i] = PageCount;
            PageCount += region.Length / Page.Size;
        }

        // The kernel's file offsets are signed.
        if (Size > long.MaxValue)
        {
            throw new ArgumentException($"{Size} bytes are more than a file can hold.", nameof(regions));
        }
    }

    /// <summary>The regions, in ascending order of address.</summary>
    internal IReadOnlyList<GuestRegion> Regions => _regions;

    /// <summary>The number of pages in all regions.</summary>
    internal ulong PageCount { get; }

    /// <summary>The number of bytes in all regions.</summary>
    internal ulong Size => PageCount * Page.Size;

    /// <summary>Whether a region holds an address.</summary>
    internal bool Contains(ulong gpa) => RegionAt(gpa) >= 0;

    /// <summary>How many bytes of all regions lie before an address.</summary>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    internal ulong OffsetOf(ulong gpa, ulong length)
    {
        int region = RegionAt(gpa);
        return region >= 0 && length <= _regions[region].End - gpa
            ? (_firstPages[region] * Page.Size) + (gpa - _regions[region].Gpa)
            : throw new ArgumentOutOfRangeException(nameof(gpa), $"No memory region holds {length} bytes at guest physical address 0x{gpa:x}.");
    }

    /// <summary>How many bytes of all regions lie before a page.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    internal ulong OffsetOfPages(ulong page, ulong count) => page <= PageCount && count <= PageCount - page
        ? page * Page.Size
        : throw new ArgumentOutOfRangeException(nameof(page), $"Pages {page} to {page + count} are not within a memory of {PageCount} pages.");

    /// <summary>The address of a page's first byte.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such page.</exception>
    internal ulong GpaOf(ulong page)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(page, PageCount);
        (int region, ulong within) = Locate(page);
        return _regions[region].Gpa + (within * Page.Size);
    }

    /// <summary>Which region a page is in, and which of its pages it is.</summary>
    internal (int Region, ulong Within) Locate(ulong page)
    {
        int region = LastNotAbove(_firstPages, page);
        return (region, page - _firstPages[region]);
    }

    /// <summary>The region that holds an address; -1 if none does.</summary>
    private int RegionAt(ulong gpa)
    {
        int low = 0;
        for (int high = _regions.Length; low < high;)
        {
            int middle = (low + high) / 2;
            (low, high) = _regions[middle].End <= gpa ? (middle + 1, high) : (low, middle);
        }

        return low < _regions.Length && _regions[low].Gpa <= gpa ? low : -1;
    }

    private static int LastNotAbove(ulong[] ascending, ulong value)
    {
        int at = Array.BinarySearch(ascending, value);
        return at >= 0 ? at : ~at - 1;
    }
}
