using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// A set of pages as runs: for each the gap behind the one before it and its length, as numbers of 7 bits per byte, the lowest first, of which all but the
/// last byte have bit 7 set.
/// </summary>
internal static class RunCoding
{
    /// <summary>The most bytes of runs in a message of their own.</summary>
    internal const int MostMessageBytes = 64 << 10;

    /// <summary>The most bytes of a number: pages are numbered with up to 32 bits.</summary>
    private const int MostNumberBytes = 5;

    /// <summary>Writes pages as runs, as far as they fit.</summary>
    /// <param name="pages">The set.</param>
    /// <param name="from">Where to begin in it; where this ended: at the number of pages if all fitted.</param>
    /// <param name="to">Where to write to; the first gap is counted from page 0.</param>
    /// <returns>How many bytes were written.</returns>
    internal static int Write(PageBitmap pages, ref ulong from, Span<byte> to)
    {
        int bytes = 0;
        ulong end = 0;
        while (true)
        {
            ulong first = pages.Next(from, pages.PageCount);
            if (first == pages.PageCount || to.Length - bytes < 2 * MostNumberBytes)
            {
                from = first;
                return bytes;
            }

            ulong behind = first + 1;
            while (behind < pages.PageCount && pages[behind])
            {
                behind += behind % PageBitmap.PagesPerWord == 0 && pages.Word(behind) == ulong.MaxValue ? (ulong)PageBitmap.PagesPerWord : 1UL;
            }

            bytes += WriteNumber(to[bytes..], first - end);
            bytes += WriteNumber(to[bytes..], behind - first);
            end = behind;
            from = behind;
        }
    }

    /// <summary>Reads the next run.</summary>
    /// <param name="runs">What is left of the runs.</param>
    /// <param name="end">The end of the run before it, 0 before the first; then the end of this one.</param>
    /// <param name="pageCount">How many pages the memory has.</param>
    /// <returns>The run's first page and its length.</returns>
    /// <exception cref="ProtocolException">There is no run, or it is not within the memory.</exception>
    internal static (ulong First, ulong Count) Read(ref ReadOnlySpan<byte> runs, ref ulong end, ulong pageCount)
    {
        ulong gap = ReadNumber(ref runs);
        ulong count = ReadNumber(ref runs);
        if (count == 0 || gap > pageCount - end || count > pageCount - end - gap)
        {
            throw new ProtocolException($"The source sent a run of {count} pages {gap} behind page {end} of a memory of {pageCount} pages.");
        }

        ulong first = end + gap;
        end = first + count;
        return (first, count);
    }

    private static int WriteNumber(Span<byte> to, ulong number)
    {
        int bytes = 0;
        for (; number >= 0x80; number >>= 7)
        {
            to[bytes++] = (byte)(number | 0x80);
        }

        to[bytes++] = (byte)number;
        return bytes;
    }

    private static ulong ReadNumber(ref ReadOnlySpan<byte> from)
    {
        ulong number = 0;
        for (int i = 0; i < Math.Min(MostNumberBytes, from.Length); i++)
        {
            number |= (ulong)(from[i] & 0x7F) << (7 * i);
            if (from[i] < 0x80)
            {
                from = from[(i + 1)..];
                return number;
            }
        }

        throw new ProtocolException("The source sent runs of pages that end in the middle of a number, or with a number too large.");
    }
}
