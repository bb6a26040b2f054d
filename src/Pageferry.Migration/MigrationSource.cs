using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Moves a guest away: its memory before it (pre-copy), after it (post-copy), or both.</summary>
public sealed class MigrationSource
{
    /// <summary>The most bytes of a machine state: 16 MiB.</summary>
    public const int MostStateBytes = 16 << 20;

    /// <summary>How long any step before switchover may take: 10 s.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    /// <summary>Pre-copy that never converges decides once a round, for days.</summary>
    private const int MostDecisions = 256;

    /// <summary>Of the downtime limit, what sending pages may take: the rest is for the messages.</summary>
    private const double SendingShare = 0.75;

    private readonly IMigratingGuest _guest;
    private readonly MigrationOptions _options;
    private readonly MigrationCounters _counters;
    private readonly Lock _switching = new();
    private readonly List<string> _decisions = [];
    private PageThreads? _threads;
    private bool _cancelled;
    private bool _switchedOver;

    /// <summary>Makes a migration; nothing happens before <see cref="Run"/>.</summary>
    /// <param name="guest">The guest.</param>
    /// <param name="options">How to move it; null for the defaults.</param>
    /// <exception cref="ArgumentException">An option is out of its range.</exception>
    public MigrationSource(IMigratingGuest guest, MigrationOptions? options = null)
        : this(guest, options ?? new MigrationOptions(), isRehearsal: false)
    {
    }

    internal MigrationSource(IMigratingGuest guest, MigrationOptions options, bool isRehearsal)
    {
        options.Check();
        if (!isRehearsal)
        {
            Rehearsal.Once();
        }

        _guest = guest;
        _options = options;
        _counters = new MigrationCounters { PagesTotal = (long)guest.Memory.PageCount };
    }

    /// <summary>How far the migration is, from any thread.</summary>
    public MigrationProgress Progress => _counters.Snapshot();

    /// <summary>Whether what happens is kept for a report, in <see cref="Recording"/>.</summary>
    public bool IsRecorded
    {
        get => _counters.Recording is not null;
        init => _counters.Recording = value ? new MigrationRecording(() => Progress) : null;
    }

    /// <summary>What happened; null unless it is recorded. Complete when <see cref="Run"/> has ended.</summary>
    public MigrationRecording? Recording => _counters.Recording;

    /// <summary>What was decided so far, and why, in sentences for a reader: the first and the latest decisions, 256 at most.</summary>
    public IReadOnlyList<string> Decisions
    {
        get
        {
            lock (_decisions)
            {
                return [.. _decisions];
            }
        }
    }

    /// <summary>Migrates. Returns when every page is at the destination.</summary>
    /// <param name="destination">
    /// Where a <see cref="MigrationDestination"/> listens: an <see cref="IPEndPoint"/> or a <see cref="DnsEndPoint"/>. Under TLS its
    /// certificate has to be for that name or address, unless the security names another.
    /// </param>
    /// <exception cref="MigrationException">
    /// It failed or was cancelled. Before switchover the guest goes on here; after it the guest is the destination's and is never resumed here.
    /// </exception>
    public void Run(EndPoint destination)
    {
        using var session = new OutgoingSession(_options, _counters);
        Recording?.Begin(_counters.PagesTotal);
        try
        {
            Migrate(destination, session);
            _counters.Phase = MigrationPhase.Completed;
        }
        catch (Exception failure)
        {
            string reason = _cancelled && !_switchedOver ? "It was cancelled." : Describe(failure);
            foreach (PeerConnection connection in session.All)
            {
                connection.TryPart(reason);
            }

            _counters.Phase = _switchedOver ? MigrationPhase.Stalled : _cancelled ? MigrationPhase.Cancelled : MigrationPhase.Failed;
            throw new MigrationException(
                _switchedOver
                    ? $"The migration to {PeerConnector.NameOf(destination)} lost its destination after switchover: {reason} The guest is the destination's; it stalls there on pages that only this side has. Its memory is kept here."
                    : $"The migration to {PeerConnector.NameOf(destination)} {(_cancelled ? "was cancelled." : $"failed: {reason}")} The guest goes on here.",
                _switchedOver,
                failure);
        }
        finally
        {
            Recording?.End();
        }
    }

    /// <summary>Ends the migration, from any thread: the guest goes on here as if nothing had been.</summary>
    /// <returns>False if it is too late: the guest is the destination's.</returns>
    public bool Cancel()
    {
        lock (_switching)
        {
            if (_switchedOver)
            {
                return false;
            }

            _cancelled = true;
        }

        _threads?.Fail(new OperationCanceledException());
        return true;
    }

    /// <summary>What a person can do with a failure of a socket or a peer.</summary>
    internal static string Describe(Exception failure) => failure switch
    {
        SocketException { SocketErrorCode: SocketError.ConnectionRefused } => "Nobody listens there (ECONNREFUSED). Start the destination first: pageferry vm receive.",
        SocketException { SocketErrorCode: SocketError.TimedOut or SocketError.WouldBlock } => $"The peer did not answer within {Patience.TotalSeconds:F0} s.",
        SocketException socket => $"{socket.Message} ({socket.SocketErrorCode}).",
        _ => failure.Message,
    };

    private void Migrate(EndPoint destination, OutgoingSession session)
    {
        session.Open(destination);
        GuestMemory memory = _guest.Memory;
        session.Send(MessageType.Layout, new MigrationLayout(_guest.Id, _guest.MachineKind, memory.Backing, memory.Regions, _options.Validate).Serialize());
        _ = session.Control.Receive(MessageType.Armed, 0);

        var pages = new OutgoingPages(memory);
        var server = new DemandServer(session.Demand, pages, _counters);
        BackgroundSender[] senders = [.. session.Background.Select((connection, index) =>
            new BackgroundSender(connection, pages, index, session.Background.Count, _options.Compression, _counters) { Limit = session.PrecopyLimit })];
        var threads = new PageThreads(session.All);
        _threads = threads;
        try
        {
            session.Demand.Patience = TimeSpan.Zero;
            threads.Start("demand pages", server.Serve);
            threads.Run(() =>
            {
                CheckNotCancelled();

                // Ended when all is over: it takes long for a memory of which much was written, and the guest waits for pages meanwhile.
                using IDirtyTracker? tracker = TrackDirtyPages();
                (uint generation, long stopped) = MoveGuest(session, pages, senders, server, threads, tracker);
                Follow(session, pages, senders, threads, generation, stopped);
            });
        }
        finally
        {
            Array.ForEach(senders, sender => sender.Dispose());
        }
    }

    /// <summary>Pre-copy, if that is wanted, and the switchover.</summary>
    /// <returns>The switchover's generation, and when the guest had stopped.</returns>
    private (uint Generation, long Stopped) MoveGuest(
        OutgoingSession session, OutgoingPages pages, BackgroundSender[] senders, DemandServer server, PageThreads threads, IDirtyTracker? tracker)
    {
        if (tracker is null)
        {
            pages.Pending.AddRun(0, pages.Memory.PageCount);
            return SwitchOver(session, pages, server, precopy: null, tracker: null, DecisionKind.PostCopy)!.Value;
        }

        _counters.Phase = MigrationPhase.PreCopy;
        var precopy = new PreCopy(_guest, session, pages, senders, threads, Decide);
        try
        {
            while (true)
            {
                DecisionKind due = precopy.Run(tracker);
                if (due == DecisionKind.Cancel)
                {
                    throw new TimeoutException($"Pre-copy did not get so far within {_options.Timeout.TotalSeconds:0.#} s that the guest would stand still for no more than {_options.DowntimeLimit.TotalMilliseconds:0} ms.");
                }

                if (SwitchOver(session, pages, server, precopy, tracker, due) is { } switched)
                {
                    return switched;
                }
            }
        }
        finally
        {
            if (_counters.Throttle != 0)
            {
                _guest.Throttle(0);
                _counters.Throttle = 0;
            }
        }
    }

    /// <returns>What tells the guest's writes; null if all memory is to go after the guest.</returns>
    private IDirtyTracker? TrackDirtyPages()
    {
        if (_options.Mode == MigrationMode.Postcopy)
        {
            Decide("post-copy from the start, as asked for");
            return null;
        }

        try
        {
            return _guest.TrackDirtyPages();
        }
        catch (IOException failure) when (_options.Mode == MigrationMode.Auto)
        {
            Decide($"post-copy from the start, since what the guest writes can't be told here: {failure.Message}");
            return null;
        }
    }

    /// <returns>The switchover's generation and when the guest had stopped; null if the guest wrote so much in the end that another round is better.</returns>
    private (uint Generation, long Stopped)? SwitchOver(
        OutgoingSession session, OutgoingPages pages, DemandServer server, PreCopy? precopy, IDirtyTracker? tracker, DecisionKind due)
    {
        PageBitmap? discarded = due == DecisionKind.PostCopy && tracker is not null ? DiscardEarly(session, pages, tracker) : null;
        _counters.Phase = MigrationPhase.SwitchingOver;
        long stopped = Stopwatch.GetTimestamp();
        _guest.Pause();
        bool isPaused = _guest.IsPaused;
        try
        {
            tracker?.Fetch(pages.Pending);
            bool hasLast = due == DecisionKind.StopAndCopy && precopy is not null;
            if (hasLast)
            {
                if (IsTooMuch(precopy!, (long)pages.Pending.CountPages()))
                {
                    _counters.Phase = MigrationPhase.PreCopy;
                    return null;
                }

                precopy!.SendLast(_options.Mode == MigrationMode.Auto && !IsTimedOut ? stopped + (long)(_options.DowntimeLimit.TotalSeconds * SendingShare * Stopwatch.Frequency) : long.MaxValue);
            }

            uint generation = (precopy?.Generation ?? 0) + 1;
            byte[] state = _guest.SaveState();
            if (state.Length > MostStateBytes)
            {
                throw new InvalidOperationException($"The machine state has {state.Length} bytes; the protocol allows {MostStateBytes}.");
            }

            byte[] outOfDate = precopy is null ? [] : RunsOf(Without(pages.Pending, discarded));
            session.Send(MessageType.Switchover, new SwitchoverMessage(generation, isPaused, outOfDate, state).Serialize());
            if (hasLast)
            {
                precopy!.AwaitRoundDone();
            }

            _ = session.Control.Receive(MessageType.StateLoaded, 0);

            // Once a byte of it may have left, the destination may run the guest.
            lock (_switching)
            {
                CheckNotCancelled();
                _threads!.ThrowFirst();
                _switchedOver = true;
            }

            session.WaitForEver();
            server.SwitchOver(generation);
            session.Send(MessageType.Start, []);
            _counters.Remaining = (long)pages.Pending.CountPages();
            _counters.Phase = MigrationPhase.PostCopy;
            return (generation, stopped);
        }
        finally
        {
            if (!_switchedOver)
            {
                _guest.Resume();
            }
        }
    }

    private bool IsTimedOut => _options.Timeout > TimeSpan.Zero && _options.OnTimeout == MigrationTimeoutAction.Ignore && _counters.Snapshot().Total >= _options.Timeout;

    /// <summary>Whether the guest wrote so much since it was decided to stop it that it is better to let it go on.</summary>
    private bool IsTooMuch(PreCopy precopy, long count)
    {
        TimeSpan expected = precopy.ExpectedDowntime(count);
        bool isTooMuch = _options.Mode == MigrationMode.Precopy && !IsTimedOut && expected > 1.5 * _options.DowntimeLimit;
        if (isTooMuch)
        {
            Decide($"the guest wrote more until it stood still: that would take {expected.TotalMilliseconds:0} ms, so it goes on for another round");
        }

        return isTooMuch;
    }

    /// <summary>Has the destination discard what is out of date while the guest still runs: what it writes from now on is little.</summary>
    private PageBitmap DiscardEarly(OutgoingSession session, OutgoingPages pages, IDirtyTracker tracker)
    {
        tracker.Fetch(pages.Pending);
        var discarded = new PageBitmap(pages.Memory.PageCount);
        for (ulong page = 0; page < pages.Memory.PageCount; page += PageBitmap.PagesPerWord)
        {
            _ = discarded.AddWord(page, pages.Pending.Word(page));
        }

        var runs = new byte[RunCoding.MostMessageBytes];
        for (ulong from = 0; from < pages.Memory.PageCount;)
        {
            int bytes = RunCoding.Write(discarded, ref from, runs);
            session.Send(MessageType.Discard, runs.AsSpan(0, bytes));
            _ = session.Control.Receive(MessageType.Discarded, 0);
        }

        return discarded;
    }

    private static PageBitmap Without(PageBitmap pages, PageBitmap? discarded)
    {
        if (discarded is null)
        {
            return pages;
        }

        var rest = new PageBitmap(pages.PageCount);
        for (ulong page = 0; page < pages.PageCount; page += PageBitmap.PagesPerWord)
        {
            _ = rest.AddWord(page, pages.Word(page) & ~discarded.Word(page));
        }

        return rest;
    }

    private static byte[] RunsOf(PageBitmap pages)
    {
        var runs = new byte[SwitchoverMessage.MostRunBytes];
        ulong from = 0;
        int bytes = RunCoding.Write(pages, ref from, runs);
        return from == pages.PageCount
            ? runs[..bytes]
            : throw new InvalidOperationException($"The pages that are out of date make more than {SwitchoverMessage.MostRunBytes} bytes of runs.");
    }

    /// <summary>After the switchover: everything that the destination does not have.</summary>
    private void Follow(OutgoingSession session, OutgoingPages pages, BackgroundSender[] senders, PageThreads threads, uint generation, long stopped)
    {
        _ = session.Control.Receive(MessageType.Running, 0);
        _counters.Downtime = Stopwatch.GetElapsedTime(stopped);

        // Not earlier: it would compete with the first pages the guest asks for.
        _counters.BeginBackground();
        foreach (BackgroundSender sender in senders)
        {
            sender.Limit = session.PostcopyLimit;
            threads.Start("background pages", () => sender.Drain(generation));
        }

        _ = session.Control.Receive(MessageType.Complete, 0);
        if (_options.Validate)
        {
            new PageValidation(pages.Memory).Compare(session.Control);
        }

        threads.Finish();
        session.Send(MessageType.Released, []);
    }

    private void CheckNotCancelled()
    {
        if (_cancelled)
        {
            throw new OperationCanceledException();
        }
    }

    private void Decide(string reason)
    {
        lock (_decisions)
        {
            if (_decisions.Count == MostDecisions)
            {
                _decisions.RemoveAt(MostDecisions / 2);
            }

            _decisions.Add(reason);
        }

        Recording?.Note(reason);
    }
}
