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
/// Faults come from the reader threads, usually one (<see cref="FaultDelivery.Queue"/>) or from the vCPUs' own threads (<see cref="FaultDelivery.Exit"/>, by
/// <see cref="Resolve"/>). Content arrives through lanes, one per receiving thread. Between them stand the page states: a page is
/// asked for once, claimed by one lane, and placed once.
/// </para>
/// <para>The fault path allocates nothing and does not log. Its lock is never taken by a thread that touches guest memory.</para>
/// </remarks>
public sealed class FaultEngine : IDisposable
{
    /// <summary>More instructions than this that can't be located are counted, and no longer logged.</summary>
    private const int MostLogged = 64;

    private static readonly Lazy<bool> s_warmQueue = new(static () => Rehearsal.Run(FaultDelivery.Queue), LazyThreadSafetyMode.PublicationOnly);
    private static readonly Lazy<bool> s_warmExits = new(static () => Rehearsal.Run(FaultDelivery.Exit), LazyThreadSafetyMode.PublicationOnly);

    private readonly ILogger _logger;
    private TaskCompletionSource _completed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<Exception> _failed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _gone = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly FaultReader[] _readers;
    private readonly RangeArming _arming;
    private readonly FaultTaking _taking;
    private readonly PageArrivals _arrivals;
    private readonly ExitFaults _exits;

    /// <summary>What was logged as not located: once each.</summary>
    private readonly HashSet<string> _unlocated = new(StringComparer.Ordinal);

    private ArmedBitmap? _armed;
    private IPagePlacer? _placer;
    private IPageSource? _source;
    private long _unknownPages;
    private volatile bool _stopped;
    private bool _hasTakenOver;

    /// <summary>Makes an engine; nothing faults before <see cref="Start"/>.</summary>
    /// <param name="memory">The memory.</param>
    /// <param name="logger">Hears of failures; null for nobody.</param>
    /// <param name="delivery">How userfaults reach who resolves them.</param>
    /// <param name="readers">How many threads read faults; at least 1. More than one ask the page source at once.</param>
    /// <param name="readerCpus">The CPUs that they run on, in turn; null for any.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no reader.</exception>
    /// <exception cref="LinuxException">No memory.</exception>
    public FaultEngine(
        GuestMemory memory, ILogger? logger = null, FaultDelivery delivery = FaultDelivery.Queue, int readers = 1, IReadOnlyList<int>? readerCpus = null)
        : this(memory, memory.Record?.States ?? new PageStates(memory.PageCount), logger, delivery, readers, readerCpus)
    {
    }

    /// <summary>Makes an engine with page states that outlive it, so that another one can take over from it (<see cref="TakeOver"/>).</summary>
    /// <param name="memory">The memory.</param>
    /// <param name="states">The states, all <see cref="PageState.Absent"/>.</param>
    /// <param name="logger">Hears of failures; null for nobody.</param>
    /// <exception cref="LinuxException">No memory.</exception>
    public FaultEngine(GuestMemory memory, PageStates states, ILogger? logger)
        : this(memory, states, logger, FaultDelivery.Queue, readers: 1, readerCpus: null)
    {
    }

    private FaultEngine(GuestMemory memory, PageStates states, ILogger? logger, FaultDelivery delivery, int readers, IReadOnlyList<int>? readerCpus)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(readers, 1);
        Memory = memory;
        Delivery = delivery;
        _logger = logger ?? NullLogger.Instance;
        _unknownPages = checked((long)memory.PageCount);
        States = states;
        _readers = [.. Enumerable.Range(0, readers).Select(i => new FaultReader(this, readerCpus?[i % readerCpus.Count]))];
        _arming = new RangeArming(this);
        _taking = new FaultTaking(this);
        _arrivals = new PageArrivals(this);
        _exits = new ExitFaults(this);

        // Memory without a page has nothing to wait for.
        AddKnown(0);
    }

    /// <summary>
    /// Makes an engine that goes on where one that died left off, with the guest running. Faults that were read and not answered are met again from
    /// <see cref="Start"/> on.
    /// </summary>
    /// <param name="memory">The memory, registered, whose faults nobody answers.</param>
    /// <param name="states">The states as they were left.</param>
    /// <param name="logger">Hears of failures, and of pages that have lost their content; null for nobody.</param>
    /// <returns>The engine.</returns>
    /// <exception cref="InvalidOperationException">The states are none that an engine leaves while its guest runs.</exception>
    /// <exception cref="LinuxException">The kernel can't say what the pages have.</exception>
    public static FaultEngine TakeOver(GuestMemory memory, PageStates states, ILogger? logger)
    {
        var takeover = new StatesTakeover(memory, states);
        ulong absent = takeover.Run();
        if (takeover.Lost > 0 && logger is not null)
        {
            EngineLog.LostContent(logger, takeover.Lost);
        }

        var engine = new FaultEngine(memory, states, logger) { _hasTakenOver = true };
        engine.AddKnown((long)(memory.PageCount - absent));
        return engine;
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

    /// <summary>The userfault that has waited longest; null when nothing waits. From any thread.</summary>
    public WaitingFault? OldestFault => Pending.TryPeekOldest(out ulong page, out long readAt, out FaultCause cause)
        ? new WaitingFault(Memory.GpaOf(page), cause, Stopwatch.GetElapsedTime(readAt))
        : null;

    /// <summary>How often <see cref="Arm"/> has begun to hide pages.</summary>
    public long Armings => _arming.Armings;

    /// <summary>
    /// Runs what hides pages while no vCPU runs; null where that is not needed. Whose guest it is sets this where a page that goes in the midst of an instruction
    /// would be no userfault. <see cref="Arm"/> is not called on a vCPU's thread then.
    /// </summary>
    public Action<Action>? RunStill { get; set; }

    /// <summary>Completes when, for the first time or since <see cref="Discard"/>, no page is armed: every page is present or known to be zero.</summary>
    public Task Completed => Volatile.Read(ref _completed).Task;

    /// <summary>Whether <see cref="Stop"/> was called.</summary>
    public bool IsStopped => _stopped;

    /// <summary>Completes, with the reason, if a reader thread fails: from then on the guest stalls on missing pages.</summary>
    public Task<Exception> Failed => _failed.Task;

    /// <summary>Completes when another process's memory turns out to be gone, with the process: nothing of it is asked for any more.</summary>
    public Task Gone => _gone.Task;

    /// <summary>
    /// Takes the engines of processes that the one whose memory this is forks (<see cref="GuestMemory.OfProcess(IReadOnlyList{GuestRegion}, Userfaultfd)"/>), each to be started and disposed, together with its
    /// memory, by who takes it. They have the same pages: those that are here are there in the child too, and the others come from the same source. Set before
    /// <see cref="Start"/>; called by the reader's thread.
    /// </summary>
    public Action<FaultEngine>? Forked { get; set; }

    /// <summary>Bytes of native memory that grow with the guest's: the page states.</summary>
    public ulong MemoryBytes => States.MemoryBytes;

    internal PlacingLocks Placing { get; } = new();

    internal PendingFaults Pending { get; } = new();

    internal IPagePlacer Placer => _placer!;

    internal PageArrivals Arrivals => _arrivals;

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
        _ = (Delivery == FaultDelivery.Exit ? s_warmExits : s_warmQueue).Value;
        StartCold(source, armed);
    }

    /// <summary>
    /// Runs once what a fault runs that comes by the queue, so that nothing of it is compiled or loaded while a guest waits. The first <see cref="Start"/> does that too; whoever knows that one will
    /// be needed at once may have it done before.
    /// </summary>
    public static void Rehearse() => _ = s_warmQueue.Value;

    /// <summary>Makes the way in for one receiving thread.</summary>
    /// <param name="buffer">The thread's buffer for all of its lanes, of <see cref="PageLane.BufferBytes"/>, which outlives them; null for one of the lane's own.</param>
    /// <returns>The lane, which the caller disposes.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The buffer is too small.</exception>
    /// <exception cref="InvalidOperationException">The engine was not started.</exception>
    public PageLane CreateLane(NativeBuffer? buffer = null)
    {
        if (buffer is not null)
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(buffer.Length, PageLane.BufferBytes, nameof(buffer));
        }

        return _source is not null ? new PageLane(this, buffer) : throw new InvalidOperationException("The fault engine was not started.");
    }

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
    /// How many pages of the range stay accessible: those of <see cref="KeepAccessible"/>, and with <see cref="UserfaultSemantics.FirstAccess"/> all that are
    /// populated.
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
    /// <returns>How many pages were armed.</returns>
    /// <exception cref="ArgumentException">The range is empty, unaligned or not memory.</exception>
    /// <exception cref="InvalidOperationException">The engine was not started or has ended.</exception>
    public ulong Disarm(ulong gpa, ulong length)
    {
        CheckRunning();
        return _arming.Disarm(Memory.FirstPageOf(gpa, length), length / Page.Size);
    }

    /// <summary>
    /// Drops the content of pages, which is out of date: they are armed until the newer one arrives. Only before the guest runs, and while no lane takes in any
    /// of them.
    /// </summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    /// <exception cref="InvalidOperationException">The engine was not started or has ended.</exception>
    /// <exception cref="LinuxException">The kernel can't hide these pages.</exception>
    public void Discard(ulong page, ulong count)
    {
        CheckRunning();
        if (Completed.IsCompleted && count > 0)
        {
            Volatile.Write(ref _completed, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously));
        }

        _arming.Discard(page, count);
    }

    /// <summary>
    /// Resolves userfaults with the content that armed pages were hidden with: they are accessible again, and who waits for them goes on. From any thread,
    /// <see cref="IPageSource.Request"/> included.
    /// </summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <returns>How many of them were armed; the others are accessible already, or on their way.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    public ulong Keep(ulong page, ulong count) => _arrivals.Keep(page, count);

    /// <summary>Whether an access to a guest physical address is a userfault now: its page is armed, or being resolved.</summary>
    /// <param name="gpa">A guest physical address within a region.</param>
    /// <returns>The attribute; another thread may change it at once.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the address.</exception>
    public bool IsArmed(ulong gpa) => IsArmedAt(Memory.FaultPageOf(Memory.PageAt(gpa)));

    /// <summary>
    /// Makes a bitmap that follows which pages are armed, for a KVM that makes the vCPUs' exits itself (<see cref="FaultDelivery.Exit"/>): all other accesses then
    /// wait in the queue of a userfaultfd, where one is permitted. Before <see cref="Start"/>.
    /// </summary>
    /// <returns>The bitmap; it is freed with the engine.</returns>
    /// <exception cref="InvalidOperationException">The engine was started.</exception>
    /// <exception cref="LinuxException">No memory.</exception>
    public ArmedBitmap ShareArmed() => _source is null
        ? _armed ??= new ArmedBitmap(this)
        : throw new InvalidOperationException("The fault engine was started before.");

    /// <summary>Whether an access to what is faulted in at once from a page on is a userfault.</summary>
    internal bool IsArmedAt(ulong first)
    {
        for (ulong page = first; page < first + Memory.FaultPages; page++)
        {
            if (States[page] is not (PageState.Present or PageState.Zero or PageState.Removed))
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
    public bool Resolve(ulong gpa, Func<bool> mayWait) => _exits.Resolve(Memory.PageAt(gpa), mayWait);

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
        return Resolve(gpa, mayWait);
    }

    /// <summary>Makes every wait in <see cref="Resolve"/> ask again whether it may go on.</summary>
    public void InterruptWaits() => _exits.InterruptWaits();

    /// <summary>
    /// Has faults delivered by the queue while something runs, for a fault whose address is not found (<see cref="FaultDelivery.Exit"/>). No thread but the
    /// one that <paramref name="run"/> lets into the guest view may touch it, and no other call of this may run, meanwhile.
    /// </summary>
    /// <param name="what">What could not be located, for the log.</param>
    /// <param name="run">Runs; it is given how many faults were read meanwhile, to ask again and again.</param>
    /// <returns>False if there is no queue: the memory is guarded without a userfaultfd. Where the engine has stopped, or the memory is not registered any more, nothing is run.</returns>
    /// <exception cref="LinuxException">No second userfaultfd can be had.</exception>
    public bool RunByQueue(string what, Action<Func<long>> run)
    {
        if (Placer is not UserfaultfdPlacer placer)
        {
            return false;
        }

        while (!Memory.TryBeginHandingOver())
        {
            if (!Memory.IsRegistered)
            {
                return true;
            }

            FaultReader.LetRemovalsBeRead();
        }

        try
        {
            if (_stopped)
            {
                // Its faults would be read and not answered.
                return true;
            }

            StepByQueue(placer, what, run);
            return true;
        }
        finally
        {
            Memory.EndHandingOver();
        }
    }

    /// <summary>
    /// Stops answering. The memory stays armed: a guest that is still running stalls on missing pages rather than reading zeros, until
    /// <see cref="GuestMemory.Unregister"/> or for ever.
    /// </summary>
    public void Stop()
    {
        Memory.WhileInPlace(() =>
        {
            using (Placing.EnterAll())
            {
                _stopped = true;
            }
        });
        Array.ForEach(_readers, reader => reader.Stop());
        InterruptWaits();
    }

    /// <summary>Stops answering and frees the page states. No vCPU may run any more that resolves its faults here.</summary>
    public void Dispose()
    {
        Stop();
        Array.ForEach(_readers, reader => reader.Dispose());
        States.Dispose();
        _armed?.Dispose();
        Statistics.Dispose();
    }

    internal void StartCold(IPageSource source, bool armed = true)
    {
        if (!Memory.IsRegistered)
        {
            Memory.RegisterFor(Delivery, vcpusExitByKvm: _armed is not null);
        }

        _source = source;
        _placer = Memory.Placer;
        if (Delivery == FaultDelivery.Exit)
        {
            Memory.Resolver = page => _exits.Resolve(page, static () => true);
        }

        if (_placer.Userfaultfd is null)
        {
            Memory.Unpublished = RemoveUnpublished;
        }

        if (!armed)
        {
            AddKnown((long)States.Replace(0, Memory.PageCount, PageState.Absent, PageState.Zero));
        }
        else if (_placer.Userfaultfd is null)
        {
            _placer.Hide(0, Memory.PageCount, ArmedContent.Keep);
        }

        _armed?.Follow(0, Memory.PageCount);
        Placing.Warm();
        if (_placer.Userfaultfd is { } userfaultfd)
        {
            if (_hasTakenOver && Memory.Record is not null)
            {
                _readers[0].TakeOver();
            }

            Array.ForEach(_readers, reader => reader.Start(userfaultfd));
        }

        if (_hasTakenOver)
        {
            // Who waits for an answer that was never given touches its page again.
            _placer.Wake(0, Memory.PageCount);
        }
    }

    internal void Request(ReadOnlySpan<ulong> pages) => _source!.Request(pages);

    /// <inheritdoc cref="FaultTaking.TakeFault"/>
    internal int TakeFault(ulong page, bool? hasContent, long metAt, Span<ulong> requests) => _taking.TakeFault(page, hasContent, metAt, requests);

    /// <inheritdoc cref="FaultTaking.TakeStray"/>
    internal void TakeStray(ulong address, long metAt) => _taking.TakeStray(address, metAt);

    /// <inheritdoc cref="FaultTaking.ApplyRemoval"/>
    internal void ApplyRemoval(ulong first, ulong end) => _taking.ApplyRemoval(first, end);

    /// <inheritdoc cref="RangeArming.IsOwnRemoval"/>
    internal bool IsOwnRemoval(ulong first, ulong end) => _arming.IsOwnRemoval(first, end);

    /// <inheritdoc cref="ExitFaults.Settle"/>
    internal void Settle() => _exits.Settle();

    /// <summary>The states of pages have changed.</summary>
    internal void Follow(ulong page, ulong count) => _armed?.Follow(page, count);

    /// <summary>Lets who waits for pages look again; with a placing lock held, so that pages stay where they are meanwhile.</summary>
    internal void SendBack(ulong page, ulong count)
    {
        // A fault within a huge page is known by the huge page's address.
        ulong first = Memory.FaultPageOf(page);
        Follow(page, count);
        Placer.Wake(first, Memory.FaultPageOf(page + count - 1) + Memory.FaultPages - first);
        _exits.Settle();
    }

    internal void AddKnown(long pages)
    {
        if (Interlocked.Add(ref _unknownPages, -pages) == 0)
        {
            _ = Volatile.Read(ref _completed).TrySetResult();
        }
    }

    /// <summary>Makes the engine of a process that was forked just now: with all placing locks held, so that no page is just being placed.</summary>
    internal FaultEngine CreateChild(Userfaultfd userfaultfd)
    {
        var child = new FaultEngine(Memory.ForChild(userfaultfd), _logger);
        ulong absent = child.States.CopyForked(States);
        child.AddKnown((long)(Memory.PageCount - absent));
        return child;
    }

    /// <summary>Hands a forked process's engine to who takes it.</summary>
    internal void HandOver(FaultEngine child)
    {
        if (Forked is { } take)
        {
            take(child);
            return;
        }

        // Nobody answers its faults, so it stalls: its userfaultfd stays open, unlike its engine.
        child.Dispose();
        throw new InvalidOperationException("The process forked, and nobody takes its child: the child stalls on missing pages.");
    }

    /// <summary>The process whose memory this is has ended.</summary>
    internal void LoseProcess()
    {
        _stopped = true;
        _ = _gone.TrySetResult();
    }

    internal void FailToPlace(string what, UserfaultfdResult result)
    {
        if (result == UserfaultfdResult.ProcessGone && Memory.MayVanish)
        {
            LoseProcess();
        }
        else
        {
            Fail(new InvalidOperationException($"{what} could not be placed: the kernel answered {result}. The guest stalls on it."));
        }
    }

    internal void Fail(Exception failure)
    {
        if (_failed.TrySetResult(failure))
        {
            EngineLog.Failed(_logger, failure);
        }
    }

    private void StepByQueue(UserfaultfdPlacer placer, string what, Action<Func<long>> run)
    {
        Statistics.AddUnlocated();
        if (_unlocated.Count < MostLogged && _unlocated.Add(what))
        {
            EngineLog.Unlocated(_logger, what);
        }

        using var reader = new FaultReader(this);
        Userfaultfd before;
        using (Placing.EnterAll())
        {
            before = placer.BeginQueue();
        }

        reader.Start(placer.Userfaultfd);
        try
        {
            run(() => reader.Faults);
        }
        finally
        {
            reader.Stop();
            using (Placing.EnterAll())
            {
                placer.EndQueue(before);
            }
        }
    }

    private void RemoveUnpublished(ulong page, ulong count)
    {
        using (Placing.EnterAll())
        {
            ApplyRemoval(page, page + count);
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
}
