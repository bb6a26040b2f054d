using System.Numerics;

namespace Pageferry.Migration;

/// <summary>
/// Which ranges of memory went how, and when: pages counted by range, kind and column, a column being the time from one of a recording's samples to the
/// next. Its size is bounded, whatever the guest's is and however long it moves.
/// </summary>
/// <remarks>
/// Who moves pages adds to counters that never go back and knows no time; what they gained from one sample to the next makes a column. So columns are made, and
/// joined, by the recording's thread alone, and no page is lost or counted twice meanwhile.
/// </remarks>
public sealed class TransferMap
{
    /// <summary>The most ranges that memory is divided into.</summary>
    public const int MostRanges = 256;

    private static readonly int s_kinds = Enum.GetValues<TransferKind>().Length;

    private readonly int _shift;
    private readonly long[] _moved;
    private readonly long[] _seen;
    private readonly int[] _cells;

    internal TransferMap(long pages, int mostColumns)
    {
        _shift = Math.Max(0, 64 - BitOperations.LeadingZeroCount((ulong)(pages - 1)) - BitOperations.Log2(MostRanges));
        Ranges = (int)(((pages - 1) >> _shift) + 1);
        _moved = new long[Ranges * s_kinds];
        _seen = new long[_moved.Length];
        _cells = new int[mostColumns * _moved.Length];
    }

    /// <summary>Pages of each range, the last one's excepted: a power of two.</summary>
    public long PagesPerRange => 1L << _shift;

    /// <summary>How many ranges there are: 1 to <see cref="MostRanges"/>, from the guest's first page on.</summary>
    public int Ranges { get; }

    /// <summary>How many columns there are: as many as the recording has samples.</summary>
    public int Columns { get; private set; }

    /// <summary>How many pages of a range went in one way in a column; to be read when the migration has ended.</summary>
    /// <param name="column">0 to <see cref="Columns"/> - 1.</param>
    /// <param name="range">0 to <see cref="Ranges"/> - 1.</param>
    /// <param name="kind">The way.</param>
    /// <exception cref="IndexOutOfRangeException">There is no such column or range.</exception>
    public int this[int column, int range, TransferKind kind] => Cells(column)[(range * s_kinds) + (int)kind];

    /// <summary>Pages went; from any thread, without allocating or locking.</summary>
    internal void Add(TransferKind kind, ulong first, ulong count)
    {
        while (count > 0)
        {
            ulong range = first >> _shift;
            ulong within = Math.Min(count, ((range + 1) << _shift) - first);
            _ = Interlocked.Add(ref _moved[((int)range * s_kinds) + (int)kind], (long)within);
            first += within;
            count -= within;
        }
    }

    /// <summary>Pages went: those of a mask.</summary>
    internal void AddMask(TransferKind kind, ulong first, ulong pages)
    {
        while (pages != 0)
        {
            (int run, int count) = PageBatch.TakeRun(ref pages);
            Add(kind, first + (ulong)run, (ulong)count);
        }
    }

    /// <summary>Makes a column of what went since the last one.</summary>
    internal void CloseColumn()
    {
        Span<int> column = Cells(Columns);
        for (int i = 0; i < _moved.Length; i++)
        {
            long moved = Volatile.Read(ref _moved[i]);
            column[i] = (int)(moved - _seen[i]);
            _seen[i] = moved;
        }

        Columns++;
    }

    /// <summary>Joins each two neighbouring columns; their number is even.</summary>
    internal void JoinColumns()
    {
        Columns /= 2;
        for (int column = 0; column < Columns; column++)
        {
            Span<int> joined = Cells(column);
            ReadOnlySpan<int> first = Cells(2 * column);
            ReadOnlySpan<int> second = Cells((2 * column) + 1);
            for (int i = 0; i < joined.Length; i++)
            {
                joined[i] = first[i] + second[i];
            }
        }
    }
    private Span<int> Cells(int column) => _cells.AsSpan(column * _moved.Length, _moved.Length);
}
