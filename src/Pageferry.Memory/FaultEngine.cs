using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Holds the userfault attribute of a guest's memory, and answers its userfaults: asks the page source once per page, and places what arrives.
/// </summary>
/// <remarks>
/// <para>
/// Faults come from the reader thread (<see cref="FaultDelivery.Queue"/>) or from the vCPUs' own threads (<see cref="FaultDelivery.Exit"/>, by
/// <see cref="Resolve"/>). Content arrives through lanes, one per receiving thread. Between them stand the page states: a page is
/// asked for once, claimed by one lane, and placed once.
/// </para>
/// <para>The fault path allocates nothing and does not log. Its lock is never taken by a thread that touches guest memory.</para>
/// </remarks>
public sealed class FaultEngine : IDisposable
{
    private static readonly Lazy<bool> s_warm = new(Rehearsal.Run, LazyThreadSafetyMode.PublicationOnly);

    private readonly ILogger _logger;
    private readonly TaskCompletionSource _completed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<Exception> _failed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly FaultReader _reader;
    private readonly RangeArming _arming;

    /// <summary>Is pulsed when a vCPU's thread that waits in <see cref="Resolve"/> has to look again.</summary>
    private readonly object _settled = new();

    private IPagePlacer? _placer;
    private IPageSource? _source;
    private long _unknownPages;
    private volatile bool _stopped;

    /// <summary>Makes an engine; nothing faults before <see cref="Start"/>.</summary>
    /// <param name="memory">The memory.</param>
    /// <param name="logger">Hears of failures; null for nobody.</param>
    /// <param name="delivery">How userfaults reach who resolves them.</param>
    /// <exception cref="LinuxException">No memory.</exception>
    public FaultEngine(GuestMemory memory, ILogger? logger = null, FaultDelivery delivery = FaultDelivery.Queue)
    {
        Memory = memory;
        Delivery = delivery;
        _logger = logger ?? NullLogger.Instance;
        _unknownPages = checked((long)memory.PageCount);
        States = new PageStates(memory.PageCount);
        _reader = new FaultReader(this);
        _arming = new RangeArming(this);
    }

    /// <summary>The memory whose faults are answered.</summary>
    public GuestMemory Memory { get; }

    /// <summary>How userfaults reach who resolves them.</summary>
    public FaultDelivery Delivery { get; }

    /// <summary>The state of each page.</summary>
    public PageStates States { get; }

    /// <summary>What the engine did, and how long the guest waited.</summary>
    public FaultStatistics Statistics { get; } = new();

    /// <summary>Pages whose content has not arrived and that aren't known to be zero.</summary>
    public long UnknownPages => Volatile.Read(ref _unknownPages);

    /// <summary>Faults read and not answered yet.</summary>
    public int PendingFaults => Pending.Count;

    /// <summary>Completes when, for the first time, no page is armed: every page is present or known to be zero.</summary>
    public Task Completed => _completed.Task;

    /// <summary>Whether <see cref="Stop"/> was called.</summary>
    public bool IsStopped => _stopped;

    /// <summary>Completes, with the reason, if the reader thread fails: from then on the guest stalls on missing pages.</summary>
    public Task<Exception> Failed => _failed.Task;

    /// <summary>Bytes of native memory that grow with the guest's: the page states.</summary>
    public ulong MemoryBytes => States.MemoryBytes;

    /// <summary>
    /// Held while events are read and acted upon, while pages are placed, and while their state changes for arming: so that no page is placed between a
    /// removal's or an arming's beginning and its effect on the page states.
    /// </summary>
    internal Lock Placing { get; } = new();

    internal PendingFaults Pending { get; } = new();

    internal IPagePlacer Placer => _placer!;

    /// <summary>Registers the memory and starts answering: from now on every access to an armed page is a userfault.</summary>
    /// <param name="source">Is asked for the pages the guest waits for.</param>
    /// <param name="armed">
    /// Whether all memory is armed from the beginning, for content that is elsewhere: the guest view must be untouched. Otherwise nothing is, and
    /// <see cref="Arm"/> says what is to be.
    /// </param>
    /// <exception cref="LinuxException">userfaultfd is refused; the message says what grants it.</exception>
    /// <exception cref="ArgumentException">The delivery is impossible on this memory; see <see cref="GuestMemory.Register"/>.</exception>
    /// <exception cref="InvalidOperationException">The engine was started before.</exception>
    public void Start(IPageSource source, bool armed = true)
    {
        if (_source is not null)
        {
            throw new InvalidOperationException("The fault engine was started before.");
        }

        // Code that runs first on a fault would be compiled, and may allocate, while a guest waits.
        _ = s_warm.Value;
        StartCold(source, armed);
    }

    /// <summary>Makes the way in for one receiving thread.</summary>
    /// <returns>The lane, which the caller disposes.</returns>
    /// <exception cref="InvalidOperationException">The engine was not started.</exception>
    public PageLane CreateLane() =>
        _source is not null ? new PageLane(this) : throw new InvalidOperationException("The fault engine was not started.");

    /// <summary>
    /// Sets the userfault attribute of a range, at any time, vCPUs running: every access that begins after this returns waits until its page is placed or
    /// disarmed. Pages are armed one by one in no particular order; each is accessible or armed, never in between.
    /// </summary>
    /// <remarks>
    /// A page that is armed already, or whose content is just arriving, stays as it is: a placement that is under way answers userfaults of before this
    /// call. Two ranges that overlap may be armed, and disarmed, from any threads at once; where they meet, the later one wins, page by page.
    /// </remarks>
    /// <param name="gpa">The first guest physical address; a multiple of <see cref="GuestMemory.FaultSize"/>.</param>
    /// <param name="length">Bytes; a multiple of <see cref="GuestMemory.FaultSize"/>, within one region.</param>
    /// <param name="semantics">Which accesses are userfaults.</param>
    /// <param name="content">What becomes of the pages' content; of no importance for <see cref="UserfaultSemantics.FirstAccess"/>.</param>
    /// <returns>
    /// How many pages of the range stay accessible: with <see cref="UserfaultSemantics.AnyAccess"/> those of <see cref="KeepAccessible"/>, with
    /// <see cref="UserfaultSemantics.FirstAccess"/> all that are populated.
    /// </returns>
    /// <exception cref="ArgumentException">The range is empty, unaligned or not memory, or the semantics are unknown; nothing has changed.</exception>
    /// <exception cref="InvalidOperationException">The engine was not started or has ended.</exception>
    /// <exception cref="LinuxException">The kernel can't hide these pages and keep their content; they are accessible as before.</exception>
    public ulong Arm(ulong gpa, ulong length, UserfaultSemantics semantics = UserfaultSemantics.AnyAccess, ArmedContent content = ArmedContent.Keep)
    {
        CheckRunning();
        return _arming.Arm(Memory.FirstPageOf(gpa, length), length / Page.Size, semantics, content);
    }

    /// <summary>
    /// Clears the userfault attribute of a range: the guest goes on with whatever content its pages have. Content that was asked for is not waited for and
    /// not taken when it arrives.
    /// </summary>
    /// <param name="gpa">The first guest physical address; a multiple of <see cref="GuestMemory.FaultSize"/>.</param>
    /// <param name="length">Bytes; a multiple of <see cref="GuestMemory.FaultSize"/>, within one region.</param>
    /// <exception cref="ArgumentException">The range is empty, unaligned or not memory.</exception>
    /// <exception cref="InvalidOperationException">The engine was not started or has ended.</exception>
    public void Disarm(ulong gpa, ulong length)
    {
        CheckRunning();
        _arming.Disarm(Memory.FirstPageOf(gpa, length), length / Page.Size);
    }

    /// <summary>Whether an access to a guest physical address is a userfault now: its page is armed, or being resolved.</summary>
    /// <param name="gpa">A guest physical address within a region.</param>
    /// <returns>The attribute; another thread may change it at once.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the address.</exception>
    public bool IsArmed(ulong gpa)
    {
        ulong first = Memory.FaultPageOf(Memory.PageAt(gpa));
        for (ulong page = first; page < first + Memory.FaultPages; page++)
        {
            if (States[page] is not (PageState.Present or PageState.Zero))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// Resolves a fault on the calling thread, which met it as an exit (<see cref="FaultDelivery.Exit"/>): asks for what is missing, waits until it is
    /// placed, and shows a page again that the kernel has unmapped. Allocates nothing.
    /// </summary>
    /// <param name="gpa">The guest physical address that was accessed.</param>
    /// <param name="mayWait">Is asked before each wait whether to go on; <see cref="InterruptWaits"/> has it asked again.</param>
    /// <returns>Whether the access may be tried again; false when <paramref name="mayWait"/> said no.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the address.</exception>
    public bool Resolve(ulong gpa, Func<bool> mayWait) => ResolvePage(Memory.PageAt(gpa), mayWait);

    /// <summary>
    /// Places what is faulted in at once around an address, and never arms it from now on: for what the kernel itself accesses in ways that no exit tells of.
    /// </summary>
    /// <param name="gpa">A guest physical address within a region.</param>
    /// <param name="mayWait">See <see cref="Resolve"/>.</param>
    /// <returns>Whether it is placed.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the address.</exception>
    public bool KeepAccessible(ulong gpa, Func<bool> mayWait)
    {
        _arming.Exempt(Memory.FaultPageOf(Memory.PageAt(gpa)));
        return !IsArmed(gpa) || Resolve(gpa, mayWait);
    }

    /// <summary>Makes every wait in <see cref="Resolve"/> ask again whether it may go on.</summary>
    public void InterruptWaits()
    {
        lock (_settled)
        {
            Monitor.PulseAll(_settled);
        }
    }

    /// <summary>
    /// Stops answering. The memory stays armed: a guest that is still running stalls on missing pages rather than reading zeros, until
    /// <see cref="GuestMemory.Unregister"/> or for ever.
    /// </summary>
    public void Stop()
    {
        lock (Placing)
        {
            _stopped = true;
        }

        _reader.Stop();
        InterruptWaits();
    }

    /// <summary>Stops answering and frees the page states. No vCPU may run any more that resolves its faults here.</summary>
    public void Dispose()
    {
        Stop();
        _reader.Dispose();
        States.Dispose();
        Statistics.Dispose();
    }

    internal void StartCold(IPageSource source, bool armed = true)
    {
        if (!Memory.IsRegistered)
        {
            Memory.Register(Delivery);
        }

        _source = source;
        _placer = Memory.Placer;
        if (Delivery == FaultDelivery.Exit)
        {
            Memory.Resolver = page => ResolvePage(page, static () => true);
        }

        if (!armed)
        {
            AddKnown((long)States.Replace(0, Memory.PageCount, PageState.Absent, PageState.Zero));
        }
        else if (_placer.Userfaultfd is null)
        {
            _placer.Hide(0, Memory.PageCount, ArmedContent.Keep);
        }

        if (_placer.Userfaultfd is { } userfaultfd)
        {
            _reader.Start(userfaultfd);
        }
    }

    internal void Request(ReadOnlySpan<ulong> pages) => _source!.Request(pages);

    /// <summary>Places a run of pages that a lane claimed and filled.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="content">Where the content is, from the beginning; null to show what guest memory has.</param>
    /// <param name="requested">How many of them were asked for.</param>
    internal void PlaceArrived(ulong page, ulong count, MappedRegion? content, ulong requested)
    {
        const ulong PagesPerHold = 64;
        ulong placed = 0;
        while (placed < count)
        {
            UserfaultfdResult result;
            ulong at = page + placed;
            ulong done;
            lock (Placing)
            {
                ulong run = States.CountRun(at, Math.Min(count - placed, PagesPerHold), PageState.Arriving);
                if (run == 0)
                {
                    DropRemoved(at);
                    placed++;
                    continue;
                }

                result = Place(at, run, content, placed * Page.Size, out done);
                _ = States.Replace(at, done, PageState.Arriving, PageState.Present);
                if (Memory.FaultPages > 1)
                {
                    ShowWhole(at, done);
                }
            }

            placed += done;
            if (done == 0 && !MayRetry(result, at))
            {
                return;
            }
        }

        Settle();
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
            SendBack(page, claimed);
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

        SendBack(page, count);
    }

    /// <summary>Acts on one fault; with <see cref="Placing"/> held.</summary>
    /// <param name="page">The page that was touched.</param>
    /// <param name="hasContent">Whether guest memory has content for it; null when the fault didn't say.</param>
    /// <param name="metAt">When the fault was met, in stopwatch ticks.</param>
    /// <param name="requests">Receives the pages that have to be requested, up to <see cref="GuestMemory.FaultPages"/>.</param>
    /// <returns>How many have to be requested; 0 when the fault is answered; below 0 when what it needs is on its way.</returns>
    internal int TakeFault(ulong page, bool? hasContent, long metAt, Span<ulong> requests)
    {
        if (_stopped)
        {
            return 0;
        }

        ulong first = Memory.FaultPageOf(page);
        int missing = 0;
        bool waits = false;
        bool isZero = false;
        for (ulong at = first; at < first + Memory.FaultPages; at++)
        {
            PageState state = States[at];
            if (state == PageState.Absent)
            {
                // Noted first: from the change on, a lane may claim and place it. One that did so just now leaves another state behind.
                Pending.Add(first, metAt, FaultCause.Demand);
                state = States.Change(at, PageState.Absent, PageState.Requested);
            }

            switch (state)
            {
                case PageState.Absent:
                    requests[missing++] = at;
                    break;

                case PageState.Present:
                    break;

                case PageState.Zero:
                    isZero = true;
                    break;

                default:
                    // Who places or arms the page wakes this waiter too.
                    Pending.Add(first, metAt, FaultCause.Arriving);
                    waits = true;
                    break;
            }
        }

        if (missing > 0 || waits)
        {
            return missing > 0 ? missing : -1;
        }

        Show(first, isZero, hasContent, metAt);
        return 0;
    }

    /// <summary>Acts on the removal of pages; with <see cref="Placing"/> held.</summary>
    internal void ApplyRemoval(ulong first, ulong end)
    {
        if (_arming.IsOwnRemoval(first, end))
        {
            return;
        }

        long becameKnown = 0;
        for (ulong page = first; page < end; page++)
        {
            while (true)
            {
                PageState state = States[page];
                PageState next = state == PageState.Arriving ? PageState.ArrivingRemoved : PageState.Zero;
                if (state is PageState.Zero or PageState.ArrivingRemoved or PageState.Arming || States.Change(page, state, next) == state)
                {
                    becameKnown += state is PageState.Absent or PageState.Requested ? 1 : 0;
                    break;
                }
            }
        }

        Placer.Forget(first, end - first);

        // Who waits for a page that was asked for touches it again and finds zeros; its content is dropped when it arrives.
        SendBack(first, end - first);
        Statistics.AddRemoved((long)(end - first));
        AddKnown(becameKnown);
    }

    /// <summary>Lets who waits for pages look again.</summary>
    internal void SendBack(ulong page, ulong count)
    {
        Placer.Wake(page, count);
        Settle();
    }

    internal void AddKnown(long pages)
    {
        if (Interlocked.Add(ref _unknownPages, -pages) == 0)
        {
            _ = _completed.TrySetResult();
        }
    }

    internal void Fail(Exception failure)
    {
        if (_failed.TrySetResult(failure))
        {
            EngineLog.Failed(_logger, failure);
        }
    }

    private void CheckRunning()
    {
        if (_source is null || _stopped || !Memory.IsRegistered)
        {
            throw new InvalidOperationException(
                _source is null ? "The fault engine was not started: nothing can be armed." : "The fault engine has ended: nothing can be armed any more.");
        }
    }

    private UserfaultfdResult Place(ulong page, ulong count, MappedRegion? content, ulong offset, out ulong done)
    {
        UserfaultfdResult result = UserfaultfdResult.Done;
        long bytes = (long)count * Page.Size;
        if (content is null)
        {
            result = Memory.FaultPages > 1 ? result : ShowKept(page);
            bytes = result == UserfaultfdResult.Done ? Memory.FaultPages > 1 ? bytes : Page.Size : 0;
        }
        else if (Memory.FaultPages > 1)
        {
            content.Span(offset, (int)count * Page.Size).CopyTo(Memory.HostViewOfPages(page, (int)count));
        }
        else
        {
            result = Placer.Place(page, count, content, offset, out bytes);
        }

        done = bytes > 0 ? (ulong)bytes / Page.Size : 0;
        if (done == 0 && result == UserfaultfdResult.AlreadyPresent)
        {
            // Somebody else placed it, and EEXIST wakes nobody.
            Placer.Wake(page, 1);
            done = 1;
        }

        return result;
    }

    private UserfaultfdResult ShowKept(ulong page)
    {
        UserfaultfdResult result = Placer.PlaceAgain(page);
        return result == UserfaultfdResult.BadSource ? Placer.PlaceZero(page) : result;
    }

    /// <summary>Shows the huge pages of a run that have become whole.</summary>
    private void ShowWhole(ulong page, ulong count)
    {
        for (ulong first = Memory.FaultPageOf(page); first < page + count; first += Memory.FaultPages)
        {
            ulong whole = 0;
            while (whole < Memory.FaultPages && States[first + whole] is PageState.Present or PageState.Zero)
            {
                whole++;
            }

            if (whole == Memory.FaultPages)
            {
                if (ShowKept(first) != UserfaultfdResult.Done)
                {
                    Placer.Wake(first, Memory.FaultPages);
                }

                RecordAnswered(first, 1);
            }
        }
    }

    /// <summary>Answers a fault on what needs no content: it was whole, or is zero.</summary>
    private void Show(ulong first, bool isZero, bool? hasContent, long metAt)
    {
        FaultCause cause = isZero ? FaultCause.Zero : FaultCause.Present;
        UserfaultfdResult result = isZero && hasContent == false ? UserfaultfdResult.BadSource : Placer.PlaceAgain(first);
        if (result == UserfaultfdResult.BadSource)
        {
            // Private memory that has content never faults as missing, so there a page that was placed is still there.
            result = isZero ? Placer.PlaceZero(first) : Memory.HasHostView ? result : UserfaultfdResult.AlreadyPresent;
        }

        _ = Pending.TryTake(first, 1, out _, out _);
        switch (result)
        {
            case UserfaultfdResult.Done:
                MarkPresent(first, isZero);
                break;

            case UserfaultfdResult.AlreadyPresent:
                // Somebody else placed it, and EEXIST wakes nobody.
                MarkPresent(first, isZero);
                Placer.Wake(first, Memory.FaultPages);
                break;

            case UserfaultfdResult.Retry:
                // An event is unread. The waiter touches the page again, and its new fault is read behind the event.
                Statistics.AddRetry();
                Placer.Wake(first, Memory.FaultPages);
                return;

            default:
                // The content of a whole page is gone: a hole was punched behind our back. A stall, never a page of zeros.
                Statistics.AddUnplaceable();
                Fail(new InvalidOperationException($"Page {first} was whole and can't be placed again: the kernel answered {result}. The guest stalls on it."));
                return;
        }

        Statistics.RecordLatency(cause, Stopwatch.GetTimestamp() - metAt);
    }

    private void MarkPresent(ulong first, bool isZero)
    {
        if (isZero)
        {
            _ = States.Replace(first, Memory.FaultPages, PageState.Zero, PageState.Present);
        }
    }

    /// <summary>Drops what arrived of a page that was removed meanwhile, and sends who waits for it back to touch it again.</summary>
    private void DropRemoved(ulong page)
    {
        _ = States.Change(page, PageState.ArrivingRemoved, PageState.Zero);
        SendBack(page, 1);
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

    private void RecordAnswered(ulong page, ulong count)
    {
        if (Pending.Count == 0)
        {
            return;
        }

        long now = Stopwatch.GetTimestamp();
        while (Pending.TryTake(page, count, out long metAt, out FaultCause cause))
        {
            Statistics.RecordLatency(cause, now - metAt);
        }
    }

    private bool ResolvePage(ulong page, Func<bool> mayWait)
    {
        Span<ulong> requests = stackalloc ulong[(int)Memory.FaultPages];
        long metAt = Stopwatch.GetTimestamp();
        while (!_stopped)
        {
            int missing;
            lock (Placing)
            {
                missing = TakeFault(page, hasContent: null, metAt, requests);
            }

            if (missing == 0)
            {
                return true;
            }

            if (missing > 0)
            {
                Request(requests[..missing]);
            }

            if (!WaitUntilSettled(Memory.FaultPageOf(page), mayWait))
            {
                return false;
            }

            if (IsWhole(Memory.FaultPageOf(page)))
            {
                return true;
            }
        }

        return mayWait();
    }

    /// <summary>Waits until nothing of a page, or huge page, is on its way.</summary>
    private bool WaitUntilSettled(ulong first, Func<bool> mayWait)
    {
        lock (_settled)
        {
            while (!_stopped && IsOnItsWay(first))
            {
                if (!mayWait())
                {
                    return false;
                }

                _ = Monitor.Wait(_settled);
            }
        }

        return true;
    }

    private bool IsWhole(ulong first) => States.CountRun(first, Memory.FaultPages, PageState.Present) == Memory.FaultPages;

    private bool IsOnItsWay(ulong first)
    {
        for (ulong page = first; page < first + Memory.FaultPages; page++)
        {
            if (States[page] is PageState.Requested or PageState.Arriving or PageState.ArrivingRemoved or PageState.Arming)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Tells the vCPUs that wait on their own threads to look again.</summary>
    private void Settle()
    {
        if (Delivery == FaultDelivery.Exit)
        {
            InterruptWaits();
        }
    }
}
