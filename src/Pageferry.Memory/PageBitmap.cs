using System.Numerics;

namespace Pageferry.Memory;

/// <summary>A set of pages, a bit for each, changed atomically by any thread.</summary>
/// <remarks>A run of pages is changed word by word (64 pages): each page changes once and atomically, the run as a whole doesn't.</remarks>
public sealed class PageBitmap
{
    /// <summary>Pages whose bits change together.</summary>
    public const int PagesPerWord = 64;

    private readonly ulong[] _words;

    /// <summary>Makes an empty set.</summary>
    /// <param name="pageCount">How many pages there are.</param>
    public PageBitmap(ulong pageCount)
    {
        PageCount = pageCount;
        _words = new ulong[(pageCount + PagesPerWord - 1) / PagesPerWord];
    }

    /// <summary>How many pages there are, in the set or not.</summary>
    public ulong PageCount { get; }

    /// <summary>Whether a page is in the set.</summary>
    /// <param name="page">0 to <see cref="PageCount"/> - 1.</param>
    /// <returns>Whether it is; another thread may change that at once.</returns>
    public bool this[ulong page] => (Volatile.Read(ref _words[page / PagesPerWord]) & BitOf(page)) != 0;

    /// <summary>How many pages are in the set. Goes over all of it.</summary>
    /// <returns>0 to <see cref="PageCount"/>.</returns>
    public ulong CountPages()
    {
        ulong count = 0;
        foreach (ulong word in _words)
        {
            count += (ulong)BitOperations.PopCount(word);
        }

        return count;
    }

    /// <summary>Takes all pages out of the set, one after another.</summary>
    public void Clear() => Array.Clear(_words);

    /// <summary>Puts a page into the set.</summary>
    /// <param name="page">0 to <see cref="PageCount"/> - 1.</param>
    /// <returns>Whether it was not in it.</returns>
    public bool Add(ulong page) => (Interlocked.Or(ref _words[page / PagesPerWord], BitOf(page)) & BitOf(page)) == 0;

    /// <summary>Puts a run of pages into the set.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the pages.</exception>
    public void AddRun(ulong page, ulong count)
    {
        if (page > PageCount || count > PageCount - page)
        {
            throw new ArgumentOutOfRangeException(nameof(page), $"Pages {page} to {page + count} are not within {PageCount} pages.");
        }

        for (ulong end = page + count; page < end;)
        {
            ulong wordEnd = Math.Min(end, (page / PagesPerWord * PagesPerWord) + PagesPerWord);
            ulong bits = (wordEnd - page == PagesPerWord ? ulong.MaxValue : BitOf(wordEnd - page) - 1) << (int)(page % PagesPerWord);
            _ = Interlocked.Or(ref _words[page / PagesPerWord], bits);
            page = wordEnd;
        }
    }

    /// <summary>Puts some of 64 pages into the set.</summary>
    /// <param name="page">The first of them, a multiple of <see cref="PagesPerWord"/>.</param>
    /// <param name="pages">Bit n stands for <paramref name="page"/> + n; none beyond <see cref="PageCount"/>.</param>
    /// <returns>Those that were not in it.</returns>
    public ulong AddWord(ulong page, ulong pages) => pages & ~Interlocked.Or(ref _words[page / PagesPerWord], pages);

    /// <summary>Takes a page out of the set.</summary>
    /// <param name="page">0 to <see cref="PageCount"/> - 1.</param>
    /// <returns>Whether it was in it: of several threads that take a page one gets it.</returns>
    public bool Take(ulong page) => (Interlocked.And(ref _words[page / PagesPerWord], ~BitOf(page)) & BitOf(page)) != 0;

    /// <summary>Takes those of 64 pages out of the set that are wanted and in it.</summary>
    /// <param name="page">The first of the 64, a multiple of <see cref="PagesPerWord"/>.</param>
    /// <param name="wanted">Bit n stands for <paramref name="page"/> + n.</param>
    /// <returns>The pages taken.</returns>
    public ulong TakeWord(ulong page, ulong wanted) => wanted & Interlocked.And(ref _words[page / PagesPerWord], ~wanted);

    /// <summary>64 pages at once.</summary>
    /// <param name="page">The first of them, a multiple of <see cref="PagesPerWord"/>.</param>
    /// <returns>Bit n stands for <paramref name="page"/> + n.</returns>
    public ulong Word(ulong page) => Volatile.Read(ref _words[page / PagesPerWord]);

    /// <summary>The next page in the set.</summary>
    /// <param name="page">Where to begin.</param>
    /// <param name="end">Where to end: up to <see cref="PageCount"/>.</param>
    /// <returns>The page; <paramref name="end"/> when there is none before it.</returns>
    public ulong Next(ulong page, ulong end)
    {
        while (page < end)
        {
            ulong rest = Word(page / PagesPerWord * PagesPerWord) >> (int)(page % PagesPerWord);
            if (rest != 0)
            {
                return Math.Min(end, page + (ulong)BitOperations.TrailingZeroCount(rest));
            }

            page = (page / PagesPerWord * PagesPerWord) + PagesPerWord;
        }

        return end;
    }

    private static ulong BitOf(ulong page) => 1UL << (int)(page % PagesPerWord);
}
