using System.Diagnostics;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>A process that runs before its memory is there: one that was restored, or a child of one.</summary>
internal sealed class LazyProcess : IPageSource, IDisposable
{
    private const int FillPages = PageLane.MaxPages;
    private const ulong Nowhere = ulong.MaxValue;

    /// <summary>What is around a page that was touched: 2 MiB, most of them behind it.</summary>
    private const ulong PagesBefore = 64;
    private const ulong PagesBehind = 448;

    /// <summary>Pages that are looked at between two looks at whether the process is still there.</summary>
    private const ulong PagesPerLook = 4096;

    private static readonly TimeSpan s_betweenLooks = TimeSpan.FromMilliseconds(20);

    private readonly FaultEngine _engine;
    private readonly IContent _content;
    private readonly ManualResetEventSlim _hasLanes = new();
    private readonly PageLane[] _lanes;

    /// <summary>One for each lane, held by who uses it. With all of them the lanes end.</summary>
    private readonly Lock[] _using;
    private readonly Lock _filling = new();
    private bool _hasEnded;

    /// <summary>Under the lock of who fills: how far the background is, and what is ahead of it since it is near what was touched last.</summary>
    private ulong _filled;
    private ulong _near;
    private ulong _nearEnd;

    /// <summary>The page that it touched last and did not have; <see cref="Nowhere"/> when that has been seen to.</summary>
    private ulong _touched = Nowhere;

    /// <summary>Begins to answer a process's faults.</summary>
    /// <param name="pid">The number it was dumped with; a child has that of the process restored.</param>
    /// <param name="engine">Its engine, not started; owned by this, and its memory with it.</param>
    /// <param name="content">Where its pages come from.</param>
    /// <param name="forked">Takes the engines of its children.</param>
    internal LazyProcess(int pid, FaultEngine engine, IContent content, Action<FaultEngine> forked)
    {
        Pid = pid;
        _engine = engine;
        _content = content;
        OnTheirWay = new PageBitmap(engine.Memory.PageCount);
        engine.Forked = forked;
        engine.Start(this);
        _lanes = content.CreateLanes(engine);
        _using = [.. _lanes.Select(_ => new Lock())];
        _hasLanes.Set();
    }

    /// <summary>The number it was dumped with.</summary>
    internal int Pid { get; }

    /// <summary>Its memory; guest physical addresses are those that it was dumped with.</summary>
    internal GuestMemory Memory => _engine.Memory;

    /// <summary>The state of its pages.</summary>
    internal PageStates States => _engine.States;

    /// <summary>The pages that were asked for and, however long it takes, come.</summary>
    internal PageBitmap OnTheirWay { get; }

    /// <summary>What was done for it.</summary>
    internal FaultStatistics Statistics => _engine.Statistics;

    /// <summary>Why it stalls; null as long as it does not.</summary>
    internal Exception? Failure => _engine.Failed.IsCompleted ? _engine.Failed.Result : null;

    /// <summary>Whether there is no such process any more.</summary>
    internal bool HasEnded
    {
        get
        {
            // Nothing tells that a process has ended: the kernel answers otherwise then. What is asked for changes nothing.
            return _engine.Gone.IsCompleted || !Memory.IsAlive;
        }
    }

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        // A process may fault at once.
        _hasLanes.Wait();
        Volatile.Write(ref _touched, pages[^1]);
        _content.Demand(this, pages);
    }

    /// <summary>Whether a page is not here, and nobody has asked for it.</summary>
    internal bool IsLeft(ulong page) => States[page] == PageState.Absent && !OnTheirWay[page];

    /// <summary>Waits until it touches what it does not have, and so runs; but not for long, since it may sleep.</summary>
    internal void AwaitTouch(TimeSpan longest)
    {
        long began = Stopwatch.GetTimestamp();
        for (Volatile.Write(ref _touched, Nowhere); Volatile.Read(ref _touched) == Nowhere && Stopwatch.GetElapsedTime(began) < longest;)
        {
            Thread.Sleep(1);
        }
    }

    /// <summary>Fills its memory, and waits until every page is there or it has ended.</summary>
    /// <param name="background">Which pages to fetch that it does not wait for.</param>
    /// <param name="limit">Holds them to a rate.</param>
    /// <param name="isEnding">Whether all are to be fetched in any case, as far as that is known now.</param>
    internal void Complete(BackgroundFill background, BandwidthLimit limit, Func<bool> isEnding)
    {
        if (background == BackgroundFill.None)
        {
            AwaitEnd(isEnding);
        }

        if (background != BackgroundFill.None || isEnding())
        {
            Fill(background == BackgroundFill.Locality, limit);
        }

        AwaitEnd(static () => false);
    }

    /// <summary>Takes pages in: those that are wanted are read and placed.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <param name="lane">Which lane of the content's is the calling thread's.</param>
    /// <param name="read">Puts the content of some of them, from a page on, into memory.</param>
    internal void Receive(ulong page, int count, int lane, PageReading read)
    {
        lock (_using[lane])
        {
            if (!_hasEnded)
            {
                Receive(_lanes[lane], page, count, read);
            }
        }
    }

    /// <summary>Places pages whose content is in a lane's buffer, as far as they are wanted and the process is there.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <param name="lane">Which lane of the content's is the calling thread's.</param>
    internal void Place(ulong page, int count, int lane)
    {
        lock (_using[lane])
        {
            if (!_hasEnded)
            {
                _ = _lanes[lane].Place(page, count, at: 0);
            }
        }
    }

    /// <summary>Stops answering and closes its userfaultfd: what has not arrived reads as zeros from now on.</summary>
    public void Dispose()
    {
        _engine.Stop();
        Array.ForEach(_using, static one => one.Enter());
        _hasEnded = true;
        Array.ForEach(_lanes, static lane => lane.Dispose());
        Memory.Dispose();
        _engine.Dispose();
        Array.ForEach(_using, static one => one.Exit());
        _hasLanes.Dispose();
    }

    /// <summary>Waits until every page is there, or the process has ended, or there is something to do.</summary>
    private void AwaitEnd(Func<bool> isOver)
    {
        while (!isOver() && !_engine.Completed.Wait(s_betweenLooks) && !HasEnded)
        {
        }
    }

    private void Fill(bool byLocality, BandwidthLimit limit)
    {
        Task[] others = [.. Enumerable.Range(1, _content.Fillers - 1).Select(filler => Task.Factory.StartNew(
            () => Fill(filler, byLocality, limit), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))];
        try
        {
            Fill(filler: 0, byLocality, limit);
        }
        finally
        {
            Task.WhenAll(others).GetAwaiter().GetResult();
        }
    }

    private void Fill(int filler, bool byLocality, BandwidthLimit limit)
    {
        while (!HasEnded && TryTakeRun(byLocality, out ulong page, out int count))
        {
            if (count > 0)
            {
                _content.Fill(this, filler, page, count);
                limit.Pay((long)count * Page.Size);
            }
        }
    }

    /// <summary>Takes the next pages that are left, in one piece, for a filler.</summary>
    /// <param name="byLocality">Whether what is near a page that was touched comes first.</param>
    /// <param name="first">The first page.</param>
    /// <param name="count">How many; 0 if there are none among those that were looked at.</param>
    /// <returns>False if all were looked at.</returns>
    private bool TryTakeRun(bool byLocality, out ulong first, out int count)
    {
        lock (_filling)
        {
            if (byLocality && Interlocked.Exchange(ref _touched, Nowhere) is var touched && touched != Nowhere)
            {
                _near = touched - Math.Min(touched, PagesBefore);
                _nearEnd = Math.Min(touched + PagesBehind, Memory.PageCount);
            }

            if (_near < _nearEnd)
            {
                _near += FindRun(_near, _nearEnd - _near, out first, out count);
                return true;
            }

            if (_filled < Memory.PageCount)
            {
                _filled += FindRun(_filled, Memory.PageCount - _filled, out first, out count);
                return true;
            }
        }

        (first, count) = (0, 0);
        return false;
    }

    /// <summary>Finds the next pages that are left, in one piece.</summary>
    /// <returns>How many pages have been seen to.</returns>
    private ulong FindRun(ulong page, ulong most, out ulong first, out int count)
    {
        (first, count) = (page, 0);
        ulong skipped = 0;
        for (ulong longest = Math.Min(most, PagesPerLook); !IsLeft(page + skipped);)
        {
            if (++skipped == longest)
            {
                return skipped;
            }
        }

        first = page + skipped;
        (int region, ulong within) = LocateRegion(first);
        ulong longestRun = Math.Min(Math.Min(FillPages, most - skipped), (Memory.Regions[region].Length / Page.Size) - within);
        while ((ulong)count < longestRun && IsLeft(first + (ulong)count))
        {
            count++;
        }

        return skipped + (ulong)count;
    }

    private (int Region, ulong Within) LocateRegion(ulong page)
    {
        int low = 0;
        int high = Memory.Regions.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) / 2;
            (low, high) = Memory.PageAt(Memory.Regions[middle].Gpa) <= page ? (middle, high) : (low, middle - 1);
        }

        return (low, page - Memory.PageAt(Memory.Regions[low].Gpa));
    }

    private void Receive(PageLane lane, ulong page, int count, PageReading read)
    {
        while (count > 0)
        {
            int begun = lane.Begin(page, count, out Span<byte> buffer);
            try
            {
                read(this, page, buffer);
            }
            catch
            {
                if (begun > 0)
                {
                    lane.Abandon();
                }

                throw;
            }

            if (begun > 0)
            {
                lane.Complete();
            }

            page += (ulong)Math.Abs(begun);
            count -= Math.Abs(begun);
        }
    }
}
