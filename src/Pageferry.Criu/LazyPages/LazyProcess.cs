using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>A process that runs before its memory is there: one that was restored, or a child of one.</summary>
internal sealed class LazyProcess : IPageSource, IDisposable
{
    private const int FillPages = PageLane.MaxPages;

    private static readonly TimeSpan s_betweenLooks = TimeSpan.FromMilliseconds(20);

    private readonly FaultEngine _engine;
    private readonly IContent _content;
    private readonly Lock _receiving = new();
    private readonly ManualResetEventSlim _hasLanes = new();
    private readonly byte[] _unwanted = new byte[PageLane.MaxPages * Page.Size];
    private readonly PageLane _demandLane;
    private readonly PageLane _otherLane;
    private bool _hasEnded;

    /// <summary>Begins to answer a process's faults.</summary>
    /// <param name="pid">The number it was dumped with; a child has that of the process restored.</param>
    /// <param name="engine">Its engine, not started; owned by this, and its memory with it.</param>
    /// <param name="content">Where its pages come from.</param>
    /// <param name="forked">Takes its children.</param>
    internal LazyProcess(int pid, FaultEngine engine, IContent content, Action<LazyProcess> forked)
    {
        Pid = pid;
        _engine = engine;
        _content = content;
        engine.Forked = child => forked(new LazyProcess(pid, child, content, forked));
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

    /// <summary>What was done for it.</summary>
    internal FaultStatistics Statistics => _engine.Statistics;

    /// <summary>Why it stalls; null as long as it does not.</summary>
    internal Exception? Failure => _engine.Failed.IsCompleted ? _engine.Failed.Result : null;

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        // A process may fault at once.
        _hasLanes.Wait();
        _content.Demand(this, pages);
    }

    /// <summary>Fills its memory, and waits until every page is there or it has ended.</summary>
    /// <param name="background">Which pages to fetch that it does not wait for.</param>
    internal void Complete(BackgroundFill background)
    {
        for (ulong page = 0; background != BackgroundFill.None && page < Memory.PageCount && !HasEnded;)
        {
            (int region, ulong within) = LocateRegion(page);
            ulong most = Math.Min(FillPages, (Memory.Regions[region].Length / Page.Size) - within);
            ulong count = States.CountRun(page, most, PageState.Absent);
            if (count > 0)
            {
                _content.Fill(this, page, (int)count);
            }

            page += Math.Max(1, count);
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
            receive(page + (ulong)done, _unwanted.AsSpan(0, Math.Min(PageLane.MaxPages, count - done) * Page.Size));
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

    private bool HasEnded
    {
        get
        {
            // Nothing tells that a process has ended: the kernel answers otherwise then. What is asked for changes nothing.
            return _engine.Gone.IsCompleted || !Memory.IsAlive;
        }
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

    private static void Receive(PageLane lane, ulong page, int count, PageReading receive)
    {
        while (count > 0)
        {
            int begun = lane.Begin(page, count, out Span<byte> buffer);
            try
            {
                receive(page, buffer);
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
