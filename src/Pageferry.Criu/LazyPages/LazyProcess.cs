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
    private readonly Lock _receiving = new();
    private readonly ManualResetEventSlim _hasLanes = new();
    private readonly byte[] _unwanted = new byte[PageLane.MaxPages * Page.Size];
    private readonly PageLane _demandLane;
    private readonly PageLane _otherLane;
    private bool _hasEnded;

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
        _demandLane = engine.CreateLane();
        _otherLane = engine.CreateLane();
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
    internal void Complete(BackgroundFill background, BandwidthLimit limit)
    {
        if (background != BackgroundFill.None)
        {
            Fill(background == BackgroundFill.Locality, limit);
        }

        while (!_engine.Completed.Wait(s_betweenLooks) && !HasEnded)
        {
        }
    }

    /// <summary>Takes pages in for which a thread of its own receives.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <param name="isDemand">Whether this is the thread that reads faults.</param>
    /// <param name="receive">Puts the content of some of them, from a page on, into memory.</param>
    internal void Receive(ulong page, int count, bool isDemand, PageReading receive)
    {
        if (isDemand)
        {
            Receive(_demandLane, page, count, receive);
            return;
        }

        lock (_receiving)
        {
            if (!_hasEnded)
            {
                Receive(_otherLane, page, count, receive);
                return;
            }
        }

        for (int done = 0; done < count; done += PageLane.MaxPages)
        {
            receive(this, page + (ulong)done, _unwanted.AsSpan(0, Math.Min(PageLane.MaxPages, count - done) * Page.Size));
        }
    }

    /// <summary>Stops answering and closes its userfaultfd: what has not arrived reads as zeros from now on.</summary>
    public void Dispose()
    {
        _engine.Stop();
        lock (_receiving)
        {
            _hasEnded = true;
            _demandLane.Dispose();
            _otherLane.Dispose();
            Memory.Dispose();
            _engine.Dispose();
        }

        _hasLanes.Dispose();
    }

    private void Fill(bool byLocality, BandwidthLimit limit)
    {
        ulong near = 0;
        ulong nearEnd = 0;
        for (ulong page = 0; page < Memory.PageCount && !HasEnded;)
        {
            if (byLocality && Interlocked.Exchange(ref _touched, Nowhere) is var touched && touched != Nowhere)
            {
                near = touched - Math.Min(touched, PagesBefore);
                nearEnd = Math.Min(touched + PagesBehind, Memory.PageCount);
            }

            if (near < nearEnd)
            {
                near += FillRun(near, nearEnd - near, limit);
            }
            else
            {
                page += FillRun(page, Memory.PageCount - page, limit);
            }
        }
    }

    /// <summary>Fetches the next pages that are left, in one piece.</summary>
    /// <returns>How many pages have been seen to.</returns>
    private ulong FillRun(ulong page, ulong most, BandwidthLimit limit)
    {
        ulong skipped = 0;
        for (ulong longest = Math.Min(most, PagesPerLook); !IsLeft(page + skipped);)
        {
            if (++skipped == longest)
            {
                return skipped;
            }
        }

        ulong first = page + skipped;
        (int region, ulong within) = LocateRegion(first);
        ulong longestRun = Math.Min(Math.Min(FillPages, most - skipped), (Memory.Regions[region].Length / Page.Size) - within);
        ulong count = 0;
        while (count < longestRun && IsLeft(first + count))
        {
            count++;
        }

        if (count > 0)
        {
            _content.Fill(this, first, (int)count);
            limit.Pay((long)count * Page.Size);
        }

        return skipped + count;
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

    private void Receive(PageLane lane, ulong page, int count, PageReading receive)
    {
        while (count > 0)
        {
            int begun = lane.Begin(page, count, out Span<byte> buffer);
            try
            {
                receive(this, page, buffer);
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
