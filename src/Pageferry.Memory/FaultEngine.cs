using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Answers the userfaults of a guest's memory: reads them, asks the page source once per page, and places what arrives.
/// </summary>
/// <remarks>
/// <para>
/// One thread reads faults, or as many as it is told. Content arrives through lanes, one per receiving thread. Between them stand the page states: a page is
/// asked for once, claimed by one lane, and placed once.
/// </para>
/// <para>The fault path allocates nothing and does not log. Its lock is never taken by a thread that touches guest memory.</para>
/// </remarks>
public sealed class FaultEngine : IDisposable
{
    private static readonly Lazy<bool> s_warm = new(Rehearsal.Run, LazyThreadSafetyMode.PublicationOnly);

    private readonly ILogger _logger;
    private readonly FaultReader[] _readers;
    private readonly EventFd _stop = new();
    private readonly TaskCompletionSource _completed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<Exception> _failed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>
    /// Held while events are read and removals applied, and while a page is placed: so that no page is placed between a removal's reading
    /// and its effect on the page states, whichever thread reads and whichever places.
    /// </summary>
    private readonly Lock _placing = new();

    private PagePlacer? _placer;
    private IPageSource? _source;
    private long _unknownPages;

    /// <summary>Makes an engine; nothing faults before <see cref="Start"/>.</summary>
    /// <param name="memory">The memory, whose guest view nobody has touched.</param>
    /// <param name="logger">Hears of failures; null for nobody.</param>
    /// <param name="readers">How many threads read faults; at least 1. More than one ask the page source at once.</param>
    /// <param name="readerCpus">The CPUs that they run on, in turn; null for any.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no reader.</exception>
    /// <exception cref="LinuxException">No memory.</exception>
    public FaultEngine(GuestMemory memory, ILogger? logger = null, int readers = 1, IReadOnlyList<int>? readerCpus = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(readers, 1);
        _readers = [.. Enumerable.Range(0, readers).Select(i => new FaultReader(readerCpus?[i % readerCpus.Count]))];
        Memory = memory;
        _logger = logger ?? NullLogger.Instance;
        _unknownPages = checked((long)memory.PageCount);
        States = new PageStates(memory.PageCount);
    }

    /// <summary>The memory whose faults are answered.</summary>
    public GuestMemory Memory { get; }

    /// <summary>The state of each page.</summary>
    public PageStates States { get; }

    /// <summary>What the engine did, and how long the guest waited.</summary>
    public FaultStatistics Statistics { get; } = new();

    /// <summary>Pages whose content has not arrived and that aren't known to be zero.</summary>
    public long UnknownPages => Volatile.Read(ref _unknownPages);

    /// <summary>Faults read and not answered yet.</summary>
    public int PendingFaults => Pending.Count;

    /// <summary>Completes when every page is present or known to be zero.</summary>
    public Task Completed => _completed.Task;

    /// <summary>Completes, with the reason, if a reader thread fails: from then on the guest stalls on missing pages.</summary>
    public Task<Exception> Failed => _failed.Task;

    internal PendingFaults Pending { get; } = new();

    /// <summary>Bytes of native memory that grow with the guest's: the page states.</summary>
    public ulong MemoryBytes => States.MemoryBytes;

    /// <summary>Arms the memory and starts the reader threads: from now on every access to a page that is not here is a userfault.</summary>
    /// <param name="source">Is asked for the pages the guest waits for.</param>
    /// <exception cref="LinuxException">userfaultfd is refused; the message says what grants it.</exception>
    /// <exception cref="InvalidOperationException">The engine was started before.</exception>
    public void Start(IPageSource source)
    {
        if (_source is not null)
        {
            throw new InvalidOperationException("The fault engine was started before.");
        }

        // Code that runs first on a fault would be compiled, and may allocate, while a guest waits.
        _ = s_warm.Value;
        StartCold(source);
    }

    /// <summary>Makes the way in for one receiving thread.</summary>
    /// <returns>The lane, which the caller disposes.</returns>
    /// <exception cref="InvalidOperationException">The engine was not started.</exception>
    public PageLane CreateLane() =>
        _source is not null ? new PageLane(this) : throw new InvalidOperationException("The fault engine was not started.");

    /// <summary>
    /// Stops the reader threads. The memory stays armed: a guest that is still running stalls on missing pages rather than reading zeros.
    /// </summary>
    public void Dispose()
    {
        _stop.Signal();
        foreach (FaultReader reader in _readers)
        {
            reader.Thread?.Join();
            reader.Dispose();
        }

        _stop.Dispose();
        States.Dispose();
        Statistics.Dispose();
    }

    internal void StartCold(IPageSource source)
    {
        if (!Memory.IsArmed)
        {
            Memory.Arm();
        }

        _source = source;
        _placer = new PagePlacer(Memory);
        foreach (FaultReader reader in _readers)
        {
            var thread = new Thread(() => ReadUntilStopped(reader)) { IsBackground = true, Name = "fault reader" };
            reader.Thread = thread;
            lock (_placing)
            {
                // A lock makes its event when it is waited for the first time: now, and not on the fault path.
                thread.Start();
                _ = SpinWait.SpinUntil(() => thread.ThreadState.HasFlag(System.Threading.ThreadState.WaitSleepJoin), millisecondsTimeout: 100);
            }
        }
    }

    /// <summary>Places a run of pages that a lane claimed and filled.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="content">The address of the content.</param>
    /// <param name="requested">How many of them were asked for.</param>
    internal void PlaceArrived(ulong page, ulong count, ulong content, ulong requested)
    {
        const ulong PagesPerHold = 64;
        ulong placed = 0;
        while (placed < count)
        {
            UserfaultfdResult result;
            ulong at = page + placed;
            ulong done = 0;
            lock (_placing)
            {
                ulong run = States.CountRun(at, Math.Min(count - placed, PagesPerHold), PageState.Arriving);
                if (run == 0)
                {
                    DropRemoved(at);
                    placed++;
                    continue;
                }

                result = _placer!.Place(at, run, content + (placed * Page.Size), out long bytes);
                done = bytes > 0 ? (ulong)bytes / Page.Size : 0;
                if (done == 0 && result == UserfaultfdResult.AlreadyPresent)
                {
                    Memory.Userfaultfd.Wake(Memory.GuestViewOfPage(at), Page.Size);
                    done = 1;
                }

                for (ulong i = 0; i < done; i++)
                {
                    _ = States.Change(at + i, PageState.Arriving, PageState.Present);
                }
            }

            placed += done;
            if (done == 0 && !MayRetry(result, at))
            {
                return;
            }
        }

        RecordAnswered(page, count);
        Statistics.AddArrived((long)requested, (long)(count - requested));
        AddKnown((long)count);
    }

    /// <summary>Marks pages as zero. They are placed when touched; who waits for one of them is sent back to touch it again.</summary>
    internal ulong ClaimZero(ulong page, ulong count)
    {
        ulong claimed = States.Claim(page, count, PageState.Zero, out ulong requested);
        if (requested > 0)
        {
            Memory.Userfaultfd.Wake(Memory.GuestViewOfPage(page), claimed * Page.Size);
        }

        Statistics.AddZero((long)claimed);
        AddKnown((long)claimed);
        return claimed;
    }

    /// <summary>Gives pages back that a lane claimed and could not fill: they are asked for again when the guest touches them again.</summary>
    internal void Abandon(ulong page, ulong count)
    {
        for (ulong i = 0; i < count; i++)
        {
            if (States.Change(page + i, PageState.Arriving, PageState.Absent) == PageState.ArrivingRemoved)
            {
                _ = States.Change(page + i, PageState.ArrivingRemoved, PageState.Zero);
                AddKnown(1);
            }
        }

        Memory.Userfaultfd.Wake(Memory.GuestViewOfPage(page), count * Page.Size);
    }

    /// <summary>Drops what arrived of a page that was removed meanwhile, and sends who waits for it back to touch it again.</summary>
    private void DropRemoved(ulong page)
    {
        _ = States.Change(page, PageState.ArrivingRemoved, PageState.Zero);
        Memory.Userfaultfd.Wake(Memory.GuestViewOfPage(page), Page.Size);
    }

    private bool MayRetry(UserfaultfdResult result, ulong page)
    {
        if (result == UserfaultfdResult.Retry)
        {
            // An event is unread. The reader is on its way to it: nothing can be placed before.
            Statistics.AddRetry();
            _ = Thread.Yield();
            return true;
        }

        Fail(new InvalidOperationException($"Page {page} could not be placed: the kernel answered {result}. The guest stalls on it."));
        return false;
    }

    private void AddKnown(long pages)
    {
        if (Interlocked.Add(ref _unknownPages, -pages) == 0)
        {
            _ = _completed.TrySetResult();
        }
    }

    private void RecordAnswered(ulong page, ulong count)
    {
        if (Pending.Count == 0)
        {
            return;
        }

        long now = Stopwatch.GetTimestamp();
        while (Pending.TryTake(page, count, out long readAt, out FaultCause cause))
        {
            Statistics.RecordLatency(cause, now - readAt);
        }
    }

    private void ReadUntilStopped(FaultReader reader)
    {
        try
        {
            if (reader.Cpu is { } cpu)
            {
                CurrentThread.RunOn(cpu);
            }

            var poll = new Poll(Memory.Userfaultfd.Descriptor, _stop.Descriptor);
            do
            {
                while (ReadBatch(reader))
                {
                }

                poll.Wait(Timeout.Infinite);
            }
            while (!poll.IsReadable(1));
        }
        catch (Exception failure)
        {
            Fail(failure);
        }
    }

    private void Fail(Exception failure)
    {
        if (_failed.TrySetResult(failure))
        {
            EngineLog.Failed(_logger, failure);
        }
    }

    /// <summary>Reads what events there are and acts on them, removals first: a fault behind them must find their effect.</summary>
    /// <returns>Whether there may be more.</returns>
    private bool ReadBatch(FaultReader reader)
    {
        int events;
        lock (_placing)
        {
            events = Memory.Userfaultfd.Read(reader.Events);
            for (int i = 0; i < events; i++)
            {
                UserfaultfdEvent read = reader.Events[i];
                if (read.Kind == UserfaultfdEventKind.Remove)
                {
                    ApplyRemoval(Memory.PageAtGuestView(read.Start), Memory.PageAtGuestView(read.End));
                }
            }
        }

        long now = Stopwatch.GetTimestamp();
        int requests = 0;
        for (int i = 0; i < events; i++)
        {
            UserfaultfdEvent read = reader.Events[i];
            if (read.Kind == UserfaultfdEventKind.PageFault && TakeFault(Memory.PageAtGuestView(read.Address), read.IsMinor, now))
            {
                reader.Requests[requests++] = Memory.PageAtGuestView(read.Address);
            }
        }

        if (requests > 0)
        {
            _source!.Request(reader.Requests.AsSpan(0, requests));
        }

        return events == FaultReader.EventsPerRead;
    }

    /// <summary>Acts on one fault.</summary>
    /// <returns>Whether the page has to be requested.</returns>
    private bool TakeFault(ulong page, bool hasContent, long readAt)
    {
        while (true)
        {
            PageState state = States[page];
            switch (state)
            {
                case PageState.Absent:
                    Pending.Add(page, readAt, FaultCause.Demand);
                    if (States.Change(page, PageState.Absent, PageState.Requested) == PageState.Absent)
                    {
                        return true;
                    }

                    break;

                case PageState.Requested:
                    return false;

                case PageState.Arriving:
                case PageState.ArrivingRemoved:
                    // Who places the page wakes this waiter too. If that was just done, the state has changed.
                    Pending.Add(page, readAt, FaultCause.Arriving);
                    if (States[page] == state)
                    {
                        return false;
                    }

                    break;

                case PageState.Present or PageState.Zero:
                    if (TryPlaceKnown(page, state, hasContent, readAt))
                    {
                        return false;
                    }

                    break;

                default:
                    throw new InvalidOperationException($"Page {page} is in no state the engine knows: {state}.");
            }
        }
    }

    /// <summary>Places a page that needs nothing from the page source, unless another reader changes its state first.</summary>
    private bool TryPlaceKnown(ulong page, PageState state, bool hasContent, long readAt)
    {
        lock (_placing)
        {
            if (States.Change(page, state, PageState.Present) != state)
            {
                return false;
            }

            bool isPlacedAgain = state == PageState.Present || hasContent;
            UserfaultfdResult result = isPlacedAgain ? _placer!.PlaceAgain(page) : _placer!.PlaceZero(page);
            if (result == UserfaultfdResult.Retry)
            {
                _ = States.Change(page, PageState.Present, state);
            }

            Answer(page, readAt, state == PageState.Present ? FaultCause.Present : FaultCause.Zero, result);
            return true;
        }
    }

    private void Answer(ulong page, long readAt, FaultCause cause, UserfaultfdResult result)
    {
        _ = Pending.TryTake(page, 1, out _, out _);
        switch (result)
        {
            case UserfaultfdResult.Done:
                Statistics.RecordLatency(cause, Stopwatch.GetTimestamp() - readAt);
                break;

            case UserfaultfdResult.AlreadyPresent:
                // Somebody else placed it, and EEXIST wakes nobody.
                Memory.Userfaultfd.Wake(Memory.GuestViewOfPage(page), Page.Size);
                Statistics.RecordLatency(cause, Stopwatch.GetTimestamp() - readAt);
                break;

            case UserfaultfdResult.Retry:
                // An event is unread. The waiter touches the page again, and its new fault is read behind the event.
                Statistics.AddRetry();
                Memory.Userfaultfd.Wake(Memory.GuestViewOfPage(page), Page.Size);
                break;

            default:
                // The content of a whole page is gone: a hole was punched behind our back. A stall, never a page of zeros.
                Statistics.AddUnplaceable();
                Fail(new InvalidOperationException($"Page {page} was whole and can't be placed again: the kernel answered {result}. The guest stalls on it."));
                break;
        }
    }

    private void ApplyRemoval(ulong first, ulong end)
    {
        long becameKnown = 0;
        for (ulong page = first; page < end; page++)
        {
            while (true)
            {
                PageState state = States[page];
                PageState next = state == PageState.Arriving ? PageState.ArrivingRemoved : PageState.Zero;
                if (state is PageState.Zero or PageState.ArrivingRemoved || States.Change(page, state, next) == state)
                {
                    becameKnown += state is PageState.Absent or PageState.Requested ? 1 : 0;
                    break;
                }
            }
        }

        // Who waits for a page that was asked for touches it again and finds zeros; its content is dropped when it arrives.
        Memory.Userfaultfd.Wake(Memory.GuestViewOfPage(first), (end - first) * Page.Size);
        Statistics.AddRemoved((long)(end - first));
        AddKnown(becameKnown);
    }
}
