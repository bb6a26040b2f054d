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

    private static readonly TimeSpan s_keeperDelay = TimeSpan.FromSeconds(1);

    /// <summary>How long it may take until nobody looks for the destination any more: an attempt to connect, with its handshake.</summary>
    private static readonly TimeSpan s_givingUp = TimeSpan.FromSeconds(60);

    /// <summary>Pre-copy that never converges decides once a round, for days.</summary>
    private const int MostDecisions = 256;

    /// <summary>Of the downtime limit, what sending pages may take: the rest is for the messages.</summary>
    private const double SendingShare = 0.75;

    private readonly IMigratingGuest _guest;
    private readonly MigrationOptions _options;
    private readonly MigrationCounters _counters;
    private readonly Lock _switching = new();

    /// <summary>Held while the guest's memory is being sent, or the destination is looked for.</summary>
    private readonly Lock _moving = new();
    private readonly List<string> _decisions = [];
    private PageThreads? _threads;
    private OutgoingConnections? _link;
    private PostCopy? _postCopy;
    private SourceStage _stage;

    /// <summary>How what outlives this process is kept; null if it isn't.</summary>
    private KeptStage? _kept;
    private bool _cancelled;

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

    /// <summary>
    /// Takes over a migration whose source let go of its guest and whose process is gone. Nothing happens before <see cref="Resume"/>, which returns when every page is at the
    /// destination; all else is as it is for a source that lost its link.
    /// </summary>
    /// <param name="guest">The guest's memory, as it was left. It is not paused, saved or tracked here; it is resumed if it is rolled back.</param>
    /// <param name="record">What the source left.</param>
    /// <param name="options">How to go on; the keeper keeps the record as let go of, for this process now.</param>
    /// <param name="destination">Where the destination listens.</param>
    /// <returns>The migration.</returns>
    /// <exception cref="ArgumentException">An option is out of its range.</exception>
    public static MigrationSource TakeOver(IMigratingGuest guest, SourceRecord record, MigrationOptions options, EndPoint destination)
    {
        var source = new MigrationSource(guest, options with { Validate = record.Layout.Validate })
        {
            _stage = SourceHandover.TakeOver(KeptStage.LetGo) ?? throw new InvalidOperationException("A guest that was let go of can be taken over."),
            _kept = KeptStage.LetGo,
        };
        source._postCopy = new PostCopy(source._options, source._counters, destination, source.Step)
        {
            Session = record.Session,
            Pages = new OutgoingPages(guest.Memory),
            Generation = record.Generation,
            State = record.State,
            IsPaused = record.IsPaused,
            Stopped = null,
        };
        source._counters.Phase = MigrationPhase.Stalled;
        return source;
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

    /// <summary>
    /// Migrates. Returns when every page is at the destination. A link that is lost after switchover is looked for, for <see cref="MigrationOptions.ReconnectFor"/>.
    /// </summary>
    /// <param name="destination">
    /// Where a <see cref="MigrationDestination"/> listens: an <see cref="IPEndPoint"/> or a <see cref="DnsEndPoint"/>. Under TLS its
    /// certificate has to be for that name or address, unless the security names another.
    /// </param>
    /// <exception cref="MigrationException">
    /// It failed or was cancelled. Before switchover the guest goes on here; after it the guest is the destination's and is never resumed here: see <see cref="Resume"/>.
    /// </exception>
    public void Run(EndPoint destination)
    {
        using Lock.Scope moving = _moving.EnterScope();
        Recording?.Begin(_counters.PagesTotal);
        try
        {
            try
            {
                RunFirstLink(destination);
            }
            catch (Exception failure) when (HasLetGo && failure is not ValidationException)
            {
                _postCopy!.GoOn(failure);
            }

            _counters.Phase = MigrationPhase.Completed;
        }
        catch (Exception failure)
        {
            throw Explain(destination, failure);
        }
        finally
        {
            Recording?.End();
        }
    }

    /// <summary>
    /// Goes on with a migration that lost its destination after switchover: looks for it at once, where it is now. While <see cref="Run"/> looks for it itself, that
    /// goes on there, and this returns at once; after it has given up, this returns when every page is at the destination.
    /// </summary>
    /// <param name="destination">Where the destination listens now.</param>
    /// <exception cref="InvalidOperationException">No link was lost.</exception>
    /// <exception cref="MigrationException">The destination was not found, or was lost again.</exception>
    public void Resume(EndPoint destination)
    {
        MigrationPhase phase = _counters.Phase;
        if (!HasLetGo || _postCopy is not { } postCopy || phase is not (MigrationPhase.Paused or MigrationPhase.Stalled))
        {
            throw new InvalidOperationException($"There is no lost link to resume: the migration is {phase}.");
        }

        postCopy.ReconnectTo(destination);
        if (phase == MigrationPhase.Paused)
        {
            return;
        }

        using Lock.Scope moving = _moving.EnterScope();
        if (!MayComeBack || _counters.Phase != MigrationPhase.Stalled)
        {
            throw new InvalidOperationException($"There is no lost link to resume any more: the migration is {_counters.Phase}.");
        }

        try
        {
            postCopy.GoOn(new TimeoutException("It was given up."));
            _counters.Phase = MigrationPhase.Completed;
        }
        catch (Exception failure)
        {
            throw Explain(destination, failure);
        }
    }

    /// <summary>Looks no longer for a destination that was lost after switchover: <see cref="Run"/> ends with an exception.</summary>
    public void GiveUp() => _postCopy?.GiveUp();

    /// <summary>What this side has of a guest that it has let go of, beside its memory, which is whole and as it was at the switchover.</summary>
    /// <returns>The half, for a file.</returns>
    /// <exception cref="InvalidOperationException">The guest was not let go of, or the destination has all of it.</exception>
    public GuestHalf Half => _stage is SourceStage.LetGo or SourceStage.Exported && _postCopy is { } postCopy
        ? new GuestHalf(LayoutOf(_guest, _options), postCopy.Session.Digest, postCopy.Generation, postCopy.IsPaused, postCopy.State, Pages: null)
        : throw new InvalidOperationException($"There is no half of a guest here: the migration is {_counters.Phase}.");

    /// <summary>
    /// Goes back to the switchover: the guest goes on here as it was then, after the destination has dropped it. What it has done there since is undone.
    /// </summary>
    /// <param name="destinationIsFenced">
    /// Whether a person vouches that the destination can't run the guest, as since its host is without power. It is asked all the same, and told to drop the guest
    /// should it come back while this process lives.
    /// </param>
    /// <exception cref="InvalidOperationException">No link was lost after the switchover, or it is there again.</exception>
    /// <exception cref="MigrationException">The destination did not say that it has dropped the guest, and may run it: nothing has changed.</exception>
    public void RollBack(bool destinationIsFenced)
    {
        MigrationPhase phase = _counters.Phase;
        if (!MayComeBack || _postCopy is not { } postCopy || phase is not (MigrationPhase.Paused or MigrationPhase.Stalled or MigrationPhase.Mismatched))
        {
            _postCopy?.KeepLooking();
            throw new InvalidOperationException($"There is nothing to go back from: the migration is {phase}.");
        }

        postCopy.GiveUp();
        if (!_moving.TryEnter(s_givingUp))
        {
            postCopy.KeepLooking();
            throw new InvalidOperationException("The destination was found again, and the guest's memory goes on following it.");
        }

        try
        {
            if (!MayComeBack)
            {
                throw new InvalidOperationException($"There is nothing to go back from any more: the migration is {_counters.Phase}.");
            }

            Fence(postCopy, destinationIsFenced);
            _counters.WaitFor(null);
            _counters.Phase = MigrationPhase.RolledBack;
            _guest.Resume();
        }
        finally
        {
            _moving.Exit();
        }
    }

    /// <summary>Ends the migration, from any thread: the guest goes on here as if nothing had been.</summary>
    /// <returns>False if it is too late: the guest is the destination's.</returns>
    public bool Cancel()
    {
        lock (_switching)
        {
            if (HasLetGo)
            {
                return false;
            }

            _cancelled = true;
        }

        _threads?.Fail(new OperationCanceledException());
        _link?.Cancel();
        return true;
    }

    /// <summary>What a person can do with a failure of a socket or a peer.</summary>
    internal static string Describe(Exception failure) => failure switch
    {
        SocketException { SocketErrorCode: SocketError.ConnectionRefused } => "Nobody listens there (ECONNREFUSED). Start the destination first: pageferry vm receive.",
        SocketException { SocketErrorCode: SocketError.TimedOut or SocketError.WouldBlock } => "The peer did not answer in time.",
        SocketException { SocketErrorCode: SocketError.ConnectionReset or SocketError.ConnectionAborted or SocketError.Shutdown } closed => $"The peer closed the connection ({closed.SocketErrorCode}).",
        SocketException socket => $"{socket.Message} ({socket.SocketErrorCode}).",
        _ => failure.Message,
    };

    private bool HasLetGo => _stage is SourceStage.LetGo or SourceStage.Forgotten or SourceStage.Exported;

    /// <summary>Whether the guest is the destination's, which may not have all of it.</summary>
    private bool MayComeBack
    {
        get
        {
            lock (_switching)
            {
                return _stage == SourceStage.LetGo;
            }
        }
    }

    private static MigrationLayout LayoutOf(IMigratingGuest guest, MigrationOptions options) =>
        new(guest.Id, guest.MachineKind, guest.Memory.Backing, guest.Memory.Regions, options.Validate);

    private SourceAction Step(SourceEvent met)
    {
        if (met is SourceEvent.FoundFenced or SourceEvent.StatedFenced)
        {
            StandBy();
        }

        lock (_switching)
        {
            (SourceStage next, SourceAction action) = SourceHandover.Step(_stage, met);
            Keep(SourceHandover.KeptAt(next));
            _stage = next;
            return action;
        }
    }

    /// <exception cref="MigrationException">The guest can't run here. It stays as it is kept, for a process where it can.</exception>
    private void StandBy()
    {
        try
        {
            _guest.StandBy();
        }
        catch (Exception failure)
        {
            throw new MigrationException($"The guest can't go on here: {failure.Message} What it was at the switchover is kept.", switchedOver: true, failure);
        }
    }

    /// <summary>Has what outlives this process be kept as a stage asks for. When this returns, it is.</summary>
    /// <exception cref="IOException">It is not known to be, so the stage is not reached.</exception>
    private void Keep(KeptStage due)
    {
        if (_options.Keeper is not { } keeper || _kept is null || _kept == due)
        {
            return;
        }

        switch (due)
        {
            case KeptStage.LetGo:
                keeper.LetGo();
                break;
            case KeptStage.Burnt:
                Burn(keeper);
                break;
            case KeptStage.Dropped:
                Drop(keeper);
                break;
        }

        _kept = due;
    }

    /// <summary>As long as it is not known that nobody can serve the guest, it stands still here: two of it are worse.</summary>
    private void Burn(ISourceKeeper keeper)
    {
        while (true)
        {
            try
            {
                keeper.Burn();
                _counters.WaitFor(null);
                return;
            }
            catch (IOException failure)
            {
                _counters.WaitFor($"the holder: {failure.Message}");
                Thread.Sleep(s_keeperDelay);
            }
        }
    }

    private static void Drop(ISourceKeeper keeper)
    {
        try
        {
            keeper.Drop();
        }
        catch (IOException)
        {
            // The destination has all: whoever took this up would hear so.
        }
    }

    private MigrationException Explain(EndPoint destination, Exception failure)
    {
        string name = PeerConnector.NameOf(_postCopy?.Destination ?? destination);
        _counters.WaitFor(null);
        if (failure is GuestGoneException)
        {
            return Gone(name, failure);
        }

        if (failure is MigrationException told)
        {
            _counters.Phase = MigrationPhase.Stalled;
            return told;
        }

        if (failure is ValidationException)
        {
            _counters.Phase = MigrationPhase.Mismatched;
            return new MigrationException(
                $"The migration to {name} did not pass validation: {failure.Message} The guest is the destination's, which has all of its memory. What it was at the switchover is kept here: 'pageferry recover rollback' has the guest go back to that.",
                switchedOver: true,
                failure);
        }

        _counters.Phase = HasLetGo ? MigrationPhase.Stalled : _cancelled ? MigrationPhase.Cancelled : MigrationPhase.Failed;
        return new MigrationException(
            HasLetGo
                ? $"The migration to {name} lost its destination after switchover: {PostCopy.DescribeLost(failure)} The guest is the destination's; it stalls there on pages that only this side has. Its memory is kept here. {PostCopy.Remedy}"
                : $"The migration to {name} {(_cancelled ? "was cancelled." : $"failed: {Describe(failure)}")} The guest goes on here.",
            HasLetGo,
            failure);
    }

    /// <summary>A destination that was found again can't run the guest any more.</summary>
    private MigrationException Gone(string name, Exception failure)
    {
        if (HasLetGo)
        {
            _counters.Phase = MigrationPhase.Exported;
            return new MigrationException($"The migration to {name} was ended: {failure.Message} This side's memory is kept here.", switchedOver: true, failure);
        }

        // It was asked to, and its answer was lost.
        _counters.Phase = MigrationPhase.RolledBack;
        _guest.Resume();
        return new MigrationException($"The migration to {name} was taken back: {failure.Message} The guest goes on here, as it was at the switchover.", switchedOver: false, failure);
    }

    private void Fence(PostCopy postCopy, bool destinationIsFenced)
    {
        try
        {
            postCopy.Fence();
        }
        catch (GuestGoneException failure)
        {
            throw Gone(PeerConnector.NameOf(postCopy.Destination), failure);
        }
        catch (MigrationException)
        {
            // It has dropped the guest, which can't run here.
            throw;
        }
        catch (Exception failure)
        {
            if (!destinationIsFenced)
            {
                throw new MigrationException(
                    $"The guest was not taken back from {PeerConnector.NameOf(postCopy.Destination)}, which did not say that it has dropped it: {PostCopy.DescribeLost(failure)} It may be running on there, with the pages it has.", switchedOver: true, failure);
            }

            _ = Step(SourceEvent.StatedFenced);
            postCopy.BeginFencing();
        }
    }

    private void RunFirstLink(EndPoint destination)
    {
        using var session = new OutgoingConnections(_options, _counters);
        try
        {
            lock (_switching)
            {
                CheckNotCancelled();
                _link = session;
            }

            Migrate(destination, session);
        }
        catch (Exception failure)
        {
            // That it parts tells the destination that the guest stays here: see SourceAction.Reconnect.
            if (!HasLetGo)
            {
                session.Part(_cancelled ? "It was cancelled." : Describe(failure));
            }

            throw;
        }
    }

    private void Migrate(EndPoint destination, OutgoingConnections session)
    {
        session.Open(destination);
        GuestMemory memory = _guest.Memory;
        session.Send(MessageType.Layout, LayoutOf(_guest, _options).Serialize());
        _ = session.Control.ReceiveAnswer(MessageType.Armed, 0);

        var pages = new OutgoingPages(memory);
        var server = new DemandServer(session.Demand, pages, _counters);
        BackgroundSender[] senders = BackgroundSender.Of(session, pages, _options.Compression, _counters);
        Array.ForEach(senders, sender => sender.Limit = session.PrecopyLimit);
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
                MoveGuest(destination, session, pages, senders, server, threads, tracker);
                _postCopy!.Follow(session, senders, threads);
            });
        }
        finally
        {
            Array.ForEach(senders, sender => sender.Dispose());
        }
    }

    /// <summary>Pre-copy, if that is wanted, and the switchover.</summary>
    private void MoveGuest(
        EndPoint destination, OutgoingConnections session, OutgoingPages pages, BackgroundSender[] senders, DemandServer server, PageThreads threads, IDirtyTracker? tracker)
    {
        if (tracker is null)
        {
            pages.Pending.AddRun(0, pages.Memory.PageCount);
            _ = TrySwitchOver(destination, session, pages, server, precopy: null, tracker: null, DecisionKind.PostCopy);
            return;
        }

        _counters.Phase = MigrationPhase.PreCopy;
        var precopy = new PreCopy(_guest, session, pages, senders, threads, Decide);
        try
        {
            DecisionKind due;
            do
            {
                due = precopy.Run(tracker);
                if (due == DecisionKind.Cancel)
                {
                    throw new TimeoutException($"Pre-copy did not get so far within {_options.Timeout.TotalSeconds:0.#} s that the guest would stand still for no more than {_options.DowntimeLimit.TotalMilliseconds:0} ms.");
                }
            }
            while (!TrySwitchOver(destination, session, pages, server, precopy, tracker, due));
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

    /// <returns>False if the guest wrote so much in the end that another round is better.</returns>
    private bool TrySwitchOver(
        EndPoint destination, OutgoingConnections session, OutgoingPages pages, DemandServer server, PreCopy? precopy, IDirtyTracker? tracker, DecisionKind due)
    {
        PageBitmap? discarded = due == DecisionKind.PostCopy && tracker is not null ? DiscardEarly(session, pages, tracker) : null;
        _counters.Phase = MigrationPhase.SwitchingOver;
        long stopped = Stopwatch.GetTimestamp();
        _guest.Pause();
        _ = Step(SourceEvent.Stopped);
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
                    return false;
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
            session.SendInTime(MessageType.Switchover, new SwitchoverMessage(generation, isPaused, outOfDate, state).Serialize());
            if (hasLast)
            {
                precopy!.AwaitRoundDone();
            }

            if (_options.Keeper is { } keeper)
            {
                // While the destination loads the state.
                keeper.Offer(SourceRecord.Of(LayoutOf(_guest, _options), session.Session, generation, isPaused, state));
                _kept = KeptStage.Offered;
            }

            _ = session.Control.ReceiveAnswer(MessageType.StateLoaded, 0);

            _postCopy = new PostCopy(_options, _counters, destination, Step) { Session = session.Session, Pages = pages, Generation = generation, State = state, IsPaused = isPaused, Stopped = stopped };

            // Once a byte of Start may have left, the destination may run the guest.
            lock (_switching)
            {
                CheckNotCancelled();
                _threads!.ThrowFirst();
                _ = Step(SourceEvent.StateLoaded);
            }

            session.ExpectLife();
            server.SwitchOver(generation);
            session.Send(MessageType.Start, []);
            _counters.Remaining = (long)pages.Pending.CountPages();
            _counters.Phase = MigrationPhase.PostCopy;
            return true;
        }
        finally
        {
            if (!HasLetGo && Step(SourceEvent.Failed) == SourceAction.Resume)
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
    private PageBitmap DiscardEarly(OutgoingConnections session, OutgoingPages pages, IDirtyTracker tracker)
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
            session.SendInTime(MessageType.Discard, runs.AsSpan(0, bytes));
            _ = session.Control.ReceiveAnswer(MessageType.Discarded, 0);
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
