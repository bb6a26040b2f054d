using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>
/// What each page of a <see cref="BalloonGuest"/> has to hold: its first content, zero since it was removed, or what was written to it since. Half of the blocks
/// of pages belong to one balloon each, so that somebody knows; the others are never removed.
/// </summary>
internal sealed class BalloonLedger
{
    public const int Balloons = 2;
    public const int LastWord = Page.Size - sizeof(ulong);

    private const ulong PagesPerBlock = 1024;

    private readonly ulong _unit;
    private readonly ulong _blocks;
    private readonly ulong[] _expected;

    /// <summary>Odd while a page is being removed or written.</summary>
    private readonly int[] _versions;

    private readonly bool[] _removed;

    /// <summary>Begins with memory that is written now.</summary>
    public BalloonLedger(GuestMemory memory, ulong unit)
    {
        _unit = unit / Page.Size;
        _blocks = memory.PageCount / PagesPerBlock;
        _expected = new ulong[memory.PageCount];
        _versions = new int[memory.PageCount];
        _removed = new bool[memory.PageCount];
        var content = new byte[Page.Size];
        for (ulong page = 0; page < memory.PageCount; page++)
        {
            _expected[page] = (page * 0x9E37_79B9_7F4A_7C15) | 1;
            BinaryPrimitives.WriteUInt64LittleEndian(content, _expected[page]);
            BinaryPrimitives.WriteUInt64LittleEndian(content.AsSpan(LastWord), _expected[page]);
            memory.Write(page * Page.Size, content);
        }
    }

    /// <summary>Pages that were removed at least once.</summary>
    public int Removed => _removed.Count(removed => removed);

    /// <summary>Whether the removal of a page has ended, whatever was done with it since.</summary>
    public bool IsRemoved(ulong page) => Volatile.Read(ref _removed[page]);

    public bool IsRight(ulong page, ulong word) => word == _expected[page];

    /// <summary>Chooses what a balloon takes next: some units of a block that is its own.</summary>
    public (ulong First, ulong Count) Choose(int balloon, Random random)
    {
        ulong block = ((ulong)random.NextInt64((long)_blocks / (2 * Balloons)) * 2 * Balloons) + (ulong)balloon;
        ulong units = PagesPerBlock / _unit;
        ulong count = (ulong)random.NextInt64(1, 1 + (long)Math.Min(units, 16));
        ulong first = (ulong)random.NextInt64(1 + (long)(units - count));
        return ((block * PagesPerBlock) + (first * _unit), count * _unit);
    }

    public void BeginRemoval(ulong first, ulong count) => Begin(first, count);

    public void EndRemoval(ulong first, ulong count)
    {
        for (ulong page = first; page < first + count; page++)
        {
            _expected[page] = 0;
            Volatile.Write(ref _removed[page], true);
        }

        End(first, count);
    }

    public ulong BeginStamp(ulong page)
    {
        Begin(page, 1);
        return ((ulong)_versions[page] << 32) | page | 1UL << 63;
    }

    public void EndStamp(ulong page)
    {
        _expected[page] = ((ulong)_versions[page] << 32) | page | 1UL << 63;
        End(page, 1);
    }

    /// <summary>Compares a word that is read from a page, unless the page changes meanwhile.</summary>
    public void Check(ulong page, Func<ulong> read)
    {
        int before = Volatile.Read(ref _versions[page]);
        ulong expected = Volatile.Read(ref _expected[page]);
        ulong word = read();
        if (before % 2 == 0 && Volatile.Read(ref _versions[page]) == before && word != expected)
        {
            throw new InvalidOperationException($"Page {page} holds 0x{word:x} and should hold 0x{expected:x}; it was {(IsRemoved(page) ? string.Empty : "never ")}removed.");
        }
    }

    private void Begin(ulong first, ulong count)
    {
        for (ulong page = first; page < first + count; page++)
        {
            _ = Interlocked.Increment(ref _versions[page]);
        }
    }

    private void End(ulong first, ulong count) => Begin(first, count);
}
