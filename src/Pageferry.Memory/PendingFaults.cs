namespace Pageferry.Memory;

/// <summary>
/// The faults that were read and not answered yet, with the time each was read. Few at any time: one per thread that touches guest memory.
/// </summary>
/// <remarks>
/// Its lock is taken by the engine's own threads for some nanoseconds and never by a thread that touches guest memory. It is one that spins: the
/// others allocate when they are first waited for.
/// </remarks>
internal sealed class PendingFaults
{
    /// <summary>More waiting threads than this are answered like the others; only their latency goes unrecorded.</summary>
    internal const int Capacity = 1024;

    private readonly ulong[] _pages = new ulong[Capacity];
    private readonly long[] _readAt = new long[Capacity];
    private readonly FaultCause[] _causes = new FaultCause[Capacity];
    private SpinLock _lock = new(enableThreadOwnerTracking: false);
    private int _count;

    /// <summary>How many faults are pending.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>Notes a fault; a page that is pending already keeps its earlier time.</summary>
    /// <param name="page">The page.</param>
    /// <param name="readAt">When its message was read, in stopwatch ticks.</param>
    /// <param name="cause">What it waits for.</param>
    public void Add(ulong page, long readAt, FaultCause cause)
    {
        bool taken = false;
        try
        {
            _lock.Enter(ref taken);
            if (_count < Capacity && Array.IndexOf(_pages, page, 0, _count) < 0)
            {
                _pages[_count] = page;
                _readAt[_count] = readAt;
                _causes[_count] = cause;
                Volatile.Write(ref _count, _count + 1);
            }
        }
        finally
        {
            Exit(taken);
        }
    }

    /// <summary>The fault that has waited longest.</summary>
    /// <param name="page">Its page.</param>
    /// <param name="readAt">When its message was read, in stopwatch ticks.</param>
    /// <param name="cause">What it waits for.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryPeekOldest(out ulong page, out long readAt, out FaultCause cause)
    {
        (page, readAt, cause) = (0, long.MaxValue, default);
        bool taken = false;
        try
        {
            _lock.Enter(ref taken);
            for (int i = 0; i < _count; i++)
            {
                if (_readAt[i] < readAt)
                {
                    (page, readAt, cause) = (_pages[i], _readAt[i], _causes[i]);
                }
            }

            return _count > 0;
        }
        finally
        {
            Exit(taken);
        }
    }

    /// <summary>Takes out one fault within a run of pages.</summary>
    /// <param name="page">The first page of the run.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="readAt">When the fault's message was read, in stopwatch ticks.</param>
    /// <param name="cause">What it waited for.</param>
    /// <returns>Whether there was one.</returns>
    public bool TryTake(ulong page, ulong count, out long readAt, out FaultCause cause)
    {
        bool taken = false;
        try
        {
            _lock.Enter(ref taken);
            for (int i = 0; i < _count; i++)
            {
                if (_pages[i] - page < count)
                {
                    readAt = _readAt[i];
                    cause = _causes[i];
                    int last = _count - 1;
                    _pages[i] = _pages[last];
                    _readAt[i] = _readAt[last];
                    _causes[i] = _causes[last];
                    Volatile.Write(ref _count, last);
                    return true;
                }
            }
        }
        finally
        {
            Exit(taken);
        }

        readAt = 0;
        cause = default;
        return false;
    }

    private void Exit(bool taken)
    {
        if (taken)
        {
            _lock.Exit();
        }
    }
}
