namespace Pageferry.Migration;

/// <summary>Which pages the source has claimed for sending: a bit per page, set once. Who sets it sends the page, nobody else ever does.</summary>
internal sealed class SentPages
{
    internal const int PagesPerWord = 64;

    private readonly ulong[] _words;

    internal SentPages(ulong pageCount)
    {
        PageCount = pageCount;
        _words = new ulong[(pageCount + PagesPerWord - 1) / PagesPerWord];

        // Bits behind the last page are taken, so that nobody ever claims them.
        if (pageCount % PagesPerWord != 0)
        {
            _words[^1] = ulong.MaxValue << (int)(pageCount % PagesPerWord);
        }
    }

    internal ulong PageCount { get; }

    /// <summary>Claims one page.</summary>
    /// <returns>Whether the caller has to send it.</returns>
    internal bool Claim(ulong page)
    {
        ulong bit = 1UL << (int)(page % PagesPerWord);
        return (Interlocked.Or(ref _words[page / PagesPerWord], bit) & bit) == 0;
    }

    /// <summary>Claims what is unclaimed of the 64 pages that a page is among, from it on.</summary>
    /// <param name="page">The page.</param>
    /// <returns>The pages claimed: bit n stands for page - page % 64 + n.</returns>
    internal ulong ClaimWord(ulong page)
    {
        ref ulong word = ref _words[page / PagesPerWord];
        ulong wanted = ulong.MaxValue << (int)(page % PagesPerWord);
        return wanted & ~Interlocked.Or(ref word, wanted);
    }

    /// <summary>The next page that is unclaimed.</summary>
    /// <param name="page">Where to begin.</param>
    /// <returns>The page; <see cref="PageCount"/> when there is none up to the end.</returns>
    internal ulong NextUnclaimed(ulong page)
    {
        for (ulong word = page / PagesPerWord; word < (ulong)_words.Length; word++)
        {
            ulong free = ~Volatile.Read(ref _words[word]);
            if (word == page / PagesPerWord)
            {
                free &= ulong.MaxValue << (int)(page % PagesPerWord);
            }

            if (free != 0)
            {
                return (word * PagesPerWord) + (ulong)System.Numerics.BitOperations.TrailingZeroCount(free);
            }
        }

        return PageCount;
    }
}
