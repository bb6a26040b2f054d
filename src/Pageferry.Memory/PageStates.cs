using System.Numerics;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>The state of every page of a guest's memory: 4 bits per page in native memory, changed atomically by any thread.</summary>
/// <remarks>
/// A run of pages is changed word by word (16 pages): each page changes once and atomically, the run as a whole doesn't.
/// </remarks>
public sealed class PageStates : IDisposable
{
    private const int BitsPerPage = 4;
    private const int PagesPerWord = 64 / BitsPerPage;
    private const ulong StateMask = (1UL << BitsPerPage) - 1;

    /// <summary>The lowest bit of every page's state.</summary>
    private const ulong EachPage = 0x1111_1111_1111_1111;

    private static readonly uint s_known = SetOf(PageState.Present) | SetOf(PageState.Zero) | SetOf(PageState.Removed);

    private readonly MappedRegion _memory;
    private readonly ulong _offset;
    private readonly bool _isOwned = true;

    /// <summary>Makes the states, all <see cref="PageState.Absent"/>.</summary>
    /// <param name="pageCount">How many pages.</param>
    /// <exception cref="LinuxException">No memory.</exception>
    public PageStates(ulong pageCount)
    {
        PageCount = pageCount;
        MemoryBytes = BytesFor(pageCount);
        _memory = MappedRegion.MapAnonymous(MemoryBytes);
    }

    /// <summary>Takes the states that are in a buffer, whose bytes are all 0 where no engine has had them before. They stay there when this is disposed.</summary>
    /// <param name="pageCount">How many pages.</param>
    /// <param name="buffer">The buffer, which outlives this.</param>
    /// <param name="offset">Where the states begin in it, in bytes: a multiple of 8. They take <see cref="BytesFor"/>.</param>
    /// <exception cref="ArgumentOutOfRangeException">They are not within the buffer.</exception>
    public PageStates(ulong pageCount, NativeBuffer buffer, int offset)
    {
        PageCount = pageCount;
        MemoryBytes = BytesFor(pageCount);
        ArgumentOutOfRangeException.ThrowIfNotEqual(offset % sizeof(ulong), 0, nameof(offset));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(MemoryBytes, (ulong)(buffer.Length - offset), nameof(offset));
        _memory = buffer.Region;
        _offset = (ulong)offset;
        _isOwned = false;
    }

    /// <summary>How many bytes the states of pages take.</summary>
    /// <param name="pageCount">How many pages.</param>
    /// <returns>A multiple of 8.</returns>
    public static ulong BytesFor(ulong pageCount) => Math.Max(1, (pageCount + PagesPerWord - 1) / PagesPerWord) * sizeof(ulong);

    /// <summary>How many pages there are.</summary>
    public ulong PageCount { get; }

    /// <summary>Bytes of native memory used.</summary>
    public ulong MemoryBytes { get; }

    private Span<ulong> Words => MemoryMarshal.Cast<byte, ulong>(_memory.Span(_offset, checked((int)MemoryBytes)));

    /// <summary>A page's state now.</summary>
    /// <param name="page">0 to <see cref="PageCount"/> - 1.</param>
    /// <returns>The state; another thread may change it at once.</returns>
    /// <exception cref="ArgumentOutOfRangeException">There is no such page.</exception>
    public PageState this[ulong page] => (PageState)((Volatile.Read(ref WordOf(page)) >> ShiftOf(page)) & StateMask);

    /// <summary>Changes a page's state if it is what it is believed to be.</summary>
    /// <param name="page">0 to <see cref="PageCount"/> - 1.</param>
    /// <param name="from">The state believed.</param>
    /// <param name="to">The new state.</param>
    /// <returns>The state found: <paramref name="from"/> when it was changed.</returns>
    /// <exception cref="ArgumentOutOfRangeException">There is no such page.</exception>
    public PageState Change(ulong page, PageState from, PageState to)
    {
        ref ulong word = ref WordOf(page);
        int shift = ShiftOf(page);
        ulong seen = Volatile.Read(ref word);
        while (true)
        {
            var found = (PageState)((seen >> shift) & StateMask);
            if (found != from)
            {
                return found;
            }

            ulong actual = Interlocked.CompareExchange(ref word, (seen & ~(StateMask << shift)) | ((ulong)to << shift), seen);
            if (actual == seen)
            {
                return from;
            }

            seen = actual;
        }
    }

    /// <summary>
    /// Claims pages whose content is known now: as many from the first on as are absent or requested change to another state.
    /// </summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">The most to claim.</param>
    /// <param name="to">The new state: <see cref="PageState.Arriving"/> or <see cref="PageState.Zero"/>.</param>
    /// <param name="requested">How many of those claimed were requested: the guest waits for them.</param>
    /// <returns>How many were claimed, in a run from <paramref name="page"/>; 0 when the first is neither absent nor requested.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the pages.</exception>
    public ulong Claim(ulong page, ulong count, PageState to, out ulong requested)
    {
        CheckRun(page, count);
        requested = 0;
        Span<ulong> words = Words;
        ulong done = 0;
        while (done < count)
        {
            ref ulong word = ref words[IndexOf(page + done)];
            int shift = ShiftOf(page + done);
            int inWord = (int)Math.Min(count - done, (ulong)(PagesPerWord - (shift / BitsPerPage)));
            ulong seen = Volatile.Read(ref word);
            int claimed = Claimable(seen, shift, inWord);
            if (claimed == 0)
            {
                break;
            }

            ulong mask = RunMask(shift, claimed);
            if (Interlocked.CompareExchange(ref word, (seen & ~mask) | ((EachPage * (ulong)to) & mask), seen) == seen)
            {
                // Claimable pages are absent (0) or requested (1): their lowest bits count those requested.
                requested += (ulong)BitOperations.PopCount(seen & mask);
                done += (ulong)claimed;
                if (claimed < inWord)
                {
                    break;
                }
            }
        }

        return done;
    }

    /// <summary>Changes every page of a run that is in one state to another, each atomically.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="from">The state to change.</param>
    /// <param name="to">The new state.</param>
    /// <returns>How many were changed.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the pages.</exception>
    public ulong Replace(ulong page, ulong count, PageState from, PageState to) => Replace(page, count, SetOf(from), to, isAlone: false);

    /// <summary>Changes every page of a run whose content is known, placed or not: <see cref="PageState.Present"/>, <see cref="PageState.Zero"/> and <see cref="PageState.Removed"/>.</summary>
    /// <inheritdoc cref="Replace(ulong, ulong, PageState, PageState)"/>
    internal ulong ReplaceKnown(ulong page, ulong count, PageState to) => Replace(page, count, s_known, to, isAlone: false);

    /// <summary>Has every page of a run be armed whose content is known; with all placing locks held, without one of which nobody changes such a page.</summary>
    /// <returns>How many there are.</returns>
    internal ulong BeginArming(ulong page, ulong count) => Replace(page, count, s_known, PageState.Arming, isAlone: true);

    /// <summary>Ends the arming of every page of a run that is being armed; with all placing locks held, without one of which nobody changes such a page.</summary>
    /// <returns>How many there are.</returns>
    internal ulong EndArming(ulong page, ulong count, PageState becomes) => Replace(page, count, SetOf(PageState.Arming), becomes, isAlone: true);

    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="from">The states to change.</param>
    /// <param name="to">The new state.</param>
    /// <param name="isAlone">Whether nobody else changes pages of these states meanwhile: so a word that has no others is not changed by anybody else.</param>
    private ulong Replace(ulong page, ulong count, uint from, PageState to, bool isAlone)
    {
        CheckRun(page, count);
        Span<ulong> words = Words;
        ulong every = EachPage * (ulong)to;
        ulong changed = 0;
        for (ulong done = 0; done < count;)
        {
            int index = IndexOf(page + done);
            ref ulong word = ref words[index];
            int shift = ShiftOf(page + done);
            int inWord = (int)Math.Min(count - done, (ulong)(PagesPerWord - (shift / BitsPerPage)));
            ulong run = RunMask(shift, inWord);
            ulong seen = Volatile.Read(ref word);
            while (true)
            {
                ulong mask = PagesInAny(seen, from) & run;
                if (isAlone && mask == ulong.MaxValue)
                {
                    // Words next to each other are mostly the same.
                    inWord = PagesPerWord * WriteAlike(words.Slice(index, (int)((count - done) / PagesPerWord)), seen, every);
                    changed += (ulong)inWord;
                    break;
                }

                ulong actual = mask == 0 ? seen : Interlocked.CompareExchange(ref word, (seen & ~mask) | (every & mask), seen);
                if (actual == seen)
                {
                    changed += (ulong)BitOperations.PopCount(mask & EachPage);
                    break;
                }

                seen = actual;
            }

            done += (ulong)inWord;
        }

        return changed;
    }

    /// <summary>Writes all words from the first on that are the same as it.</summary>
    /// <returns>How many there are.</returns>
    private static int WriteAlike(Span<ulong> words, ulong first, ulong to)
    {
        int count = 0;
        while (count < words.Length && Volatile.Read(ref words[count]) == first)
        {
            Volatile.Write(ref words[count], to);
            count++;
        }

        return count;
    }

    /// <summary>How many pages from the first on are in a state.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">The most to count.</param>
    /// <param name="state">The state.</param>
    /// <returns>0 to <paramref name="count"/>.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the pages.</exception>
    public ulong CountRun(ulong page, ulong count, PageState state)
    {
        CheckRun(page, count);
        Span<ulong> words = Words;
        ulong done = 0;
        while (done < count)
        {
            int shift = ShiftOf(page + done);
            int inWord = (int)Math.Min(count - done, (ulong)(PagesPerWord - (shift / BitsPerPage)));
            ulong others = ~PagesIn(Volatile.Read(ref words[IndexOf(page + done)]), state) >> shift;
            int run = Math.Min(inWord, BitOperations.TrailingZeroCount(others) / BitsPerPage);
            done += (ulong)run;
            if (run < inWord)
            {
                break;
            }
        }

        return done;
    }

    /// <summary>How many pages from the first on can't be claimed: they are neither absent nor requested.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">The most to count.</param>
    /// <returns>0 to <paramref name="count"/>.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the pages.</exception>
    public ulong CountUnclaimable(ulong page, ulong count)
    {
        CheckRun(page, count);
        ulong done = 0;
        while (done < count && this[page + done] is not (PageState.Absent or PageState.Requested))
        {
            done++;
        }

        return done;
    }

    /// <summary>
    /// Takes the states of a process that forks, which nobody changes meanwhile. What is on its way there is absent here: the child's memory has what was placed.
    /// </summary>
    /// <param name="parent">The states of as many pages.</param>
    /// <returns>How many pages are absent.</returns>
    internal ulong CopyForked(PageStates parent)
    {
        parent.Words.CopyTo(Words);
        _ = Replace(0, PageCount, PageState.Requested, PageState.Absent);
        _ = Replace(0, PageCount, PageState.Arriving, PageState.Absent);
        _ = Replace(0, PageCount, PageState.ArrivingRemoved, PageState.Removed);

        // Those that change to what they are.
        return Replace(0, PageCount, PageState.Absent, PageState.Absent);
    }

    /// <summary>Whether a state is none that this build knows: a newer one left it, or nobody.</summary>
    internal bool HasUnknown()
    {
        // The highest bit of each page's four.
        foreach (ulong word in Words)
        {
            if ((word & (EachPage << (BitsPerPage - 1))) != 0)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Gives the native memory back, unless it is somebody's buffer.</summary>
    public void Dispose()
    {
        if (_isOwned)
        {
            _memory.Dispose();
        }
    }

    private static int IndexOf(ulong page) => (int)(page / PagesPerWord);

    private static int ShiftOf(ulong page) => (int)(page % PagesPerWord) * BitsPerPage;

    private static ulong RunMask(int shift, int count) =>
        count == PagesPerWord ? ulong.MaxValue : ((1UL << (count * BitsPerPage)) - 1) << shift;

    /// <summary>All four bits of each page of a word that is in a state.</summary>
    private static ulong PagesIn(ulong word, PageState state)
    {
        ulong different = word ^ (EachPage * (ulong)state);
        different |= different >> 1;
        different |= different >> 2;
        return (~different & EachPage) * StateMask;
    }

    /// <summary>A set of states: a bit for each.</summary>
    private static uint SetOf(PageState state) => 1U << (int)state;

    private static ulong PagesInAny(ulong word, uint states)
    {
        ulong pages = 0;
        for (uint rest = states; rest != 0; rest &= rest - 1)
        {
            pages |= PagesIn(word, (PageState)BitOperations.TrailingZeroCount(rest));
        }

        return pages;
    }

    /// <summary>How many pages of a word from a shift on are absent or requested: states whose upper bits are 0.</summary>
    private static int Claimable(ulong word, int shift, int most)
    {
        ulong upperBits = (word & ~EachPage) >> shift;
        return Math.Min(most, BitOperations.TrailingZeroCount(upperBits) / BitsPerPage);
    }

    private ref ulong WordOf(ulong page)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(page, PageCount);
        return ref Words[IndexOf(page)];
    }

    private void CheckRun(ulong page, ulong count)
    {
        if (page > PageCount || count > PageCount - page)
        {
            throw new ArgumentOutOfRangeException(nameof(page), $"Pages {page} to {page + count} are not within {PageCount} pages.");
        }
    }
}
