using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>One guest's arrival, from its first connection to its last page, over as many links as that takes.</summary>
internal sealed class IncomingSession(Func<MigrationLayout, IArrivingGuest> prepare) : IDisposable
{
    /// <summary>How long a guest whose memory is whole may take to be known to have executed.</summary>
    private static readonly TimeSpan s_firstInstruction = TimeSpan.FromSeconds(1);

    /// <summary>How long a source that has ended a connection before the switchover is listened to.</summary>
    private static readonly TimeSpan s_lastWord = TimeSpan.FromSeconds(1);

    private readonly Lock _stepping = new();
    private readonly Lock _controlSends = new();
    private readonly TaskCompletionSource _running = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private IncomingConnections? _link;
    private MigrationLayout? _layout;
    private IArrivingGuest? _guest;
    private FaultEngine? _engine;
    private IncomingPages? _pages;
    private DemandRequester? _requester;
    private PageThreads? _threads;
    private bool _isPaused;
    private uint _generation;

    /// <summary>Whether the source expects to hear that the guest has executed; on a new link only behind what is found there.</summary>
    private bool _tellsRunning = true;

    /// <summary>What the source said where it was to forget a guest that is whole here; null if it did not.</summary>
    private ProtocolException? _parting;

    /// <summary>Whether the source said on the control connection that it parts, instead of letting the guest go.</summary>
    private bool _hasSourceParted;

    internal MigrationCounters Counters { get; } = new() { Phase = MigrationPhase.Waiting };

    /// <summary>Whose the guest is.</summary>
    internal DestinationStage Stage { get; private set; }

    /// <summary>Whether the guest is here, so that a link that is lost is waited for.</summary>
    internal bool HoldsGuest => Stage is DestinationStage.Loaded or DestinationStage.Started or DestinationStage.Whole or DestinationStage.Exported or DestinationStage.Fenced;

    /// <summary>Whether what failed is the engine, which no other link mends.</summary>
    internal bool HasEngineFailed => _engine?.Failed.IsCompleted == true;

    /// <summary>The guest; null before its layout is here.</summary>
    internal Guid? GuestId => _layout?.GuestId;

    /// <summary>The source's address; null before it is heard.</summary>
    internal EndPoint? Peer { get; private set; }

    /// <summary>What it is called by, which only its source was told.</summary>
    internal SessionId Id { get; private set; }

    /// <summary>What answers the guest's faults; null before its memory is armed.</summary>
    internal FaultEngine? Engine { get; private set; }

    /// <summary>Why the last link was lost; null while there is one.</summary>
    internal Exception? Lost { get; private set; }

    /// <summary>How long a source may say nothing, on any connection, before the guest could run here.</summary>
    internal TimeSpan LongestSilence { get; init; }

    /// <summary>How long a connection may be silent after that.</summary>
    internal TimeSpan LinkTimeout { get; init; }

    private PeerConnection Control => _link!.Control;

    /// <summary>Takes over a guest from a process that died, as far as it had come there: its source comes back as after any lost link.</summary>
    /// <param name="guest">The guest, whose record says how far it is.</param>
    internal void TakeOver(IArrivingGuest guest)
    {
        ArrivalRecord record = guest.Record!;
        _guest = guest;
        _engine = guest.Engine;
        _layout = record.Layout;
        _isPaused = record.IsPaused;
        _tellsRunning = false;
        Id = record.Session;
        Stage = record.Stage;
        Lost = new MigrationException("The engine was started anew.", switchedOver: Stage != DestinationStage.Loaded);
        _generation = record.Generation;
        Counters.PagesTotal = (long)_engine.Memory.PageCount;
        Counters.ProtocolVersion = record.ProtocolVersion;
        Counters.Phase = MigrationPhase.Paused;
        _requester = new DemandRequester(_engine.States, connection: null, static _ => { });
        _pages = new IncomingPages(_engine, Counters, _requester, record.BackgroundConnections, record.Digests());
        _pages.GoOnAfter(record.Generation);
        if (record.HasExecuted)
        {
            _ = _running.TrySetResult();
        }

        _engine.Start(_requester);
        Engine = _engine;

        switch (DestinationHandover.TakeOver(Stage))
        {
            case DestinationAction.Stop:
                guest.Stop();
                break;
            case DestinationAction.Run:
                Counters.BeginBackground();
                StartGuest();
                break;
        }
    }

    /// <summary>Takes a link that begins this session, up to what the source says of the guest's memory.</summary>
    internal void Begin(IncomingConnections link)
    {
        if (link.IsResumed)
        {
            throw new ProtocolException("A source came back to a session that has ended.");
        }

        _link = link;
        Id = link.Id;
        Peer = link.Control.Socket.RemoteEndPoint;
        link.AcceptRest(MigrationSource.Patience);
        Counters.ProtocolVersion = link.Version;
        Counters.Phase = MigrationPhase.Preparing;
        _layout = MigrationLayout.Deserialize(Control.ReceiveAnswer(MessageType.Layout, MigrationLayout.MostBytes));
    }

    /// <summary>From the layout to the last page, on the first link.</summary>
    internal void Migrate(Action<IArrivingGuest> arrived)
    {
        _guest = prepare(_layout!);
        _engine = _guest.Engine;
        Counters.PagesTotal = (long)_engine.Memory.PageCount;
        Counters.Recording?.Begin(Counters.PagesTotal);
        _threads = new PageThreads(_link!.All);
        _requester = new DemandRequester(_engine.States, _link.Demand, _threads.Fail);
        _engine.Start(_requester);
        Engine = _engine;
        _pages = new IncomingPages(_engine, Counters, _requester, _link.Background.Count, DigestsOf(_guest, _layout!)) { RoundDone = TellRoundDone };
        SendControl(MessageType.Armed);
        foreach (PeerConnection connection in _link.All)
        {
            // Rounds take as long as they take; but a source that takes no answer would hold whoever sends one.
            connection.Patience = TimeSpan.Zero;
            connection.SendPatience = MigrationSource.Patience;
        }

        ReceiveBackground();
        using var watch = new SilenceWatch(LongestSilence, () => Counters.Bytes, _threads.Fail);
        RunLink(() =>
        {
            SwitchOver(watch);
            AwaitStart(arrived);
            Complete();
        });
    }

    /// <summary>Goes on with a link on which the source came back.</summary>
    internal void GoOn(IncomingConnections link, Action<IArrivingGuest> arrived)
    {
        _link = link;
        Peer = link.Control.Socket.RemoteEndPoint;
        link.AcceptRest(MigrationSource.Patience);
        if (link.Background.Count != _pages!.BackgroundConnections)
        {
            throw new ProtocolException($"The source came back with {link.Background.Count} background connections where it had {_pages.BackgroundConnections}.");
        }

        if (BeginLink() == DestinationAction.TellGone)
        {
            TellGone();
        }

        _threads = new PageThreads(link.All);
        link.ExpectLife(LinkTimeout);
        TellMissing();
        Counters.Phase = Stage == DestinationStage.Loaded ? MigrationPhase.SwitchingOver : MigrationPhase.PostCopy;
        Counters.AddReconnect();
        ReceiveBackground();
        _requester!.Attach(link.Demand, _threads.Fail);
        RunLink(() =>
        {
            if (Stage == DestinationStage.Loaded)
            {
                AwaitStart(arrived);
            }
            else
            {
                Receive(link.Demand, ConnectionRole.Demand);
            }

            Complete();
        });
    }

    /// <summary>Ends the link that failed.</summary>
    /// <returns>What to do about the guest.</returns>
    internal DestinationAction Lose(Exception failure)
    {
        Lost = failure;
        Part(MigrationSource.Describe(failure));
        _link?.Dispose();
        _requester?.Detach();
        lock (_controlSends)
        {
            _tellsRunning = false;
        }

        return Step(_hasSourceParted ? DestinationEvent.Parted : DestinationEvent.LinkLost);
    }

    /// <summary>Takes the guest out of this process, once its link is lost: it is stopped, and never runs here again.</summary>
    /// <returns>What is here of it, beside its memory.</returns>
    /// <exception cref="InvalidOperationException">It was not let run here, or has all its memory, or its link is there.</exception>
    /// <remarks>Where a vCPU may wait for a page that nothing interrupts, the guest is stopped before: when it has been taken out, no source brings a page any more.</remarks>
    internal GuestHalf Export()
    {
        lock (_stepping)
        {
            if (Stage != DestinationStage.Exported && (Stage != DestinationStage.Started || Lost is null))
            {
                throw new InvalidOperationException(Stage == DestinationStage.Started
                    ? "Its link to the source is there, so nothing of it is lost."
                    : Stage is DestinationStage.Whole or DestinationStage.Released ? "All of its memory is here: it needs nothing of its source." : "It was not let run here.");
            }

            _ = Step(DestinationEvent.Exported);
        }

        _guest!.Stop();
        Counters.Phase = MigrationPhase.Exported;
        return new GuestHalf(_layout!, Id.Digest, _generation, _isPaused, _guest.SaveState(), _engine!.States);
    }

    /// <summary>A source begins anew.</summary>
    /// <returns>What to do about the guest that is here, if it is the same.</returns>
    internal DestinationAction MeetAnew() => Step(DestinationEvent.BegunAnew);

    /// <summary>Tells the source why it is turned away.</summary>
    internal void Part(string reason)
    {
        foreach (PeerConnection connection in _link?.All ?? [])
        {
            connection.TryPart(reason);
        }
    }

    /// <summary>Closes the connections. A guest that is held here stays, and its engine with it; what is here of another goes with them.</summary>
    public void Dispose()
    {
        _link?.Dispose();
        if (Stage == DestinationStage.Empty)
        {
            Drop();
        }
    }

    /// <summary>Drops a guest that does not run here.</summary>
    internal void Drop()
    {
        _engine?.Dispose();
        _guest?.Dispose();
    }

    private static ReceivedDigests? DigestsOf(IArrivingGuest guest, MigrationLayout layout) =>
        guest.Record is { } record ? record.Digests() : layout.Validate ? new ReceivedDigests(guest.Engine.Memory.PageCount) : null;

    /// <summary>The source comes back, unless the guest is just being taken out of this process.</summary>
    private DestinationAction BeginLink()
    {
        lock (_stepping)
        {
            DestinationAction action = Step(DestinationEvent.Resumed);
            Lost = action == DestinationAction.TellGone ? Lost : null;
            return action;
        }
    }

    private void TellGone()
    {
        SendControl(MessageType.Found, [(byte)(Stage == DestinationStage.Fenced ? FoundGuest.Fenced : FoundGuest.Exported)]);

        // The source closes the link when it has heard that: closed from here, what was said last may be lost with it.
        _ = Control.ReceiveHeader();
        throw Gone();
    }

    private ProtocolException Gone() => new(
        Stage == DestinationStage.Fenced ? "The guest was dropped here: its source went back to the switchover." : "The guest was taken out of this destination as a file.");

    /// <summary>Waits for the source's word; it may as well be that the guest is to be dropped.</summary>
    private void ReceiveUnlessFenced(MessageType due)
    {
        (MessageType type, int bytes) = Control.ReceiveHeader();
        if (bytes != 0 || (type != due && type != MessageType.Fence))
        {
            throw new ProtocolException($"The source sent a frame {type} of {bytes} bytes where {due} is due.");
        }

        if (type == MessageType.Fence && Step(DestinationEvent.Fenced) == DestinationAction.Stop)
        {
            _guest!.Stop();
            Counters.Phase = MigrationPhase.RolledBack;
            TellGone();
        }
    }

    private DestinationAction Step(DestinationEvent met)
    {
        lock (_stepping)
        {
            (Stage, DestinationAction action) = DestinationHandover.Step(Stage, met);
            if (_guest?.Record is { } record)
            {
                // Before it is acted on.
                record.Stage = Stage;
            }

            return action;
        }
    }

    private void RunLink(Action work)
    {
        _threads!.Run(work);
        if (Stage == DestinationStage.Whole)
        {
            throw (Exception?)_parting ?? new EndOfStreamException("The source closed the connection before it said that it has forgotten the guest.");
        }

        if (Stage == DestinationStage.Fenced)
        {
            throw Gone();
        }

        Counters.Phase = MigrationPhase.Completed;
    }

    private void ReceiveBackground()
    {
        foreach (PeerConnection background in _link!.Background)
        {
            Receive(background, ConnectionRole.Background);
        }
    }

    private void Receive(PeerConnection connection, ConnectionRole role)
    {
        var receiver = new PageReceiver(connection, _pages!, role);
        for (int i = 0; i < receiver.Threads; i++)
        {
            _threads!.Start($"{role} pages", () =>
            {
                try
                {
                    receiver.ReceiveAll();
                }
                catch (Exception failure) when (Stage == DestinationStage.Empty && failure is (EndOfStreamException or SocketException))
                {
                    // A source that ends its connections says why on the control connection, which may be heard a moment later.
                    _ = _threads!.Failed.Wait(s_lastWord);
                    throw;
                }
                finally
                {
                    _pages!.End();
                }
            });
        }
    }

    private void SwitchOver(SilenceWatch watch)
    {
        SwitchoverMessage message = AwaitSwitchover(watch);
        Counters.Phase = MigrationPhase.SwitchingOver;
        _generation = message.Generation;
        _pages!.SwitchOver(message.Generation);
        Discard(message.OutOfDate.Span);
        _guest!.LoadState(message.State.Span);
        _isPaused = message.IsPaused;
        _guest.Record?.Load(Id, _link!.Version, _link.Background.Count, message.Generation, _isPaused);

        // From here on the source may have let go of the guest: its word is waited for as long as it takes, on one link or another.
        watch.End();
        _link!.ExpectLife(LinkTimeout);
        if (Step(DestinationEvent.StateLoaded) == DestinationAction.TellLoaded)
        {
            SendControl(MessageType.StateLoaded);
        }
    }

    private void AwaitStart(Action<IArrivingGuest> arrived)
    {
        try
        {
            ReceiveUnlessFenced(MessageType.Start);
        }
        catch (ProtocolException failure) when (failure.IsParting)
        {
            _hasSourceParted = true;
            throw;
        }

        if (Step(DestinationEvent.Start) != DestinationAction.Run)
        {
            return;
        }

        Counters.Phase = MigrationPhase.PostCopy;
        Counters.BeginBackground();
        Receive(_link!.Demand, ConnectionRole.Demand);
        StartGuest();
        arrived(_guest!);
    }

    private void StartGuest()
    {
        _guest!.Start(_isPaused, TellRunning);
        if (_isPaused)
        {
            TellRunning();
        }
    }

    /// <summary>Takes in what is said until the guest has stopped at the source.</summary>
    private SwitchoverMessage AwaitSwitchover(SilenceWatch watch)
    {
        while (true)
        {
            (MessageType type, int bytes) = Control.ReceiveHeader();
            bool isSwitchover = type == MessageType.Switchover;
            if ((!isSwitchover && type != MessageType.Discard) || bytes > (isSwitchover ? SwitchoverMessage.MostBytes : RunCoding.MostMessageBytes))
            {
                throw new ProtocolException($"The source sent a frame {type} of {bytes} bytes before the switchover.");
            }

            var payload = new byte[bytes];
            Control.ReceivePayload(type, payload);
            watch.Hear();
            if (isSwitchover)
            {
                return SwitchoverMessage.Deserialize(payload);
            }

            _pages!.EndRounds();
            Discard(payload);
            SendControl(MessageType.Discarded);
        }
    }

    private void Discard(ReadOnlySpan<byte> runs)
    {
        ulong end = 0;
        while (!runs.IsEmpty)
        {
            (ulong first, ulong count) = RunCoding.Read(ref runs, ref end, _engine!.Memory.PageCount);
            _engine.Discard(first, count);
        }
    }

    private void TellMissing()
    {
        lock (_controlSends)
        {
            _tellsRunning = true;
            MissingPages.Send(Control, _engine!.States, Stage == DestinationStage.Loaded ? FoundGuest.Loaded : _running.Task.IsCompleted ? FoundGuest.Running : FoundGuest.Started);
        }
    }

    private void Complete()
    {
        _threads!.Start("control", () =>
        {
            AwaitReleased();
            _ = Step(DestinationEvent.Released);
        });
        if (Stage != DestinationStage.Whole && !AwaitPages())
        {
            return;
        }

        _threads.Finish();
        if (Step(DestinationEvent.PagesComplete) == DestinationAction.TellComplete)
        {
            SendControl(MessageType.Complete);
            _pages!.Digests?.Send((type, payload) => SendControl(type, payload.Span));
        }

        _threads.Join("control");
        if (_layout!.Backing == GuestBacking.Memfd2M && _engine!.Memory.Backing != GuestBacking.Memfd2M)
        {
            // It had huge pages there, and took as much memory as it can take here. Not earlier: no page that is waited for is to wait for that.
            _engine.Memory.BeginCollapse();
        }
    }

    private void AwaitReleased()
    {
        _parting = null;
        try
        {
            ReceiveUnlessFenced(MessageType.Released);
        }
        catch (ProtocolException failure) when (failure.IsParting)
        {
            _parting = failure;
            throw;
        }
    }

    /// <returns>Whether all pages are here; false if the link was lost or the engine failed.</returns>
    private bool AwaitPages()
    {
        // An engine that failed has the guest stall: what it knew of a page does not hold, so that no page is missing does not either.
        if (Task.WaitAny(_engine!.Completed, _threads!.Failed, _engine.Failed) != 0 || HasEngineFailed)
        {
            if (HasEngineFailed)
            {
                _threads.Fail(_engine.Failed.Result);
            }

            return false;
        }

        // The source hears that the guest runs before it hears that all is here, also if the guest stands in a loop in which nothing is seen of it.
        _ = _running.Task.Wait(s_firstInstruction);
        TellRunning();

        // Every page is present or known to be zero. Whoever still waits touches its page again and finds it without us.
        _engine.Stop();
        _engine.Memory.Unregister();
        return true;
    }

    private void TellRoundDone(uint generation)
    {
        Span<byte> payload = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(payload, generation);
        Counters.Round = generation;
        SendControl(MessageType.RoundDone, payload);
    }

    private void TellRunning()
    {
        try
        {
            lock (_controlSends)
            {
                if (!_running.TrySetResult())
                {
                    return;
                }

                if (_guest!.Record is { } record)
                {
                    record.HasExecuted = true;
                }

                if (_tellsRunning)
                {
                    Control.Send(MessageType.Running, []);
                }
            }
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // Told with the next link.
            _threads!.Fail(failure);
        }
    }

    private void SendControl(MessageType type, ReadOnlySpan<byte> payload = default)
    {
        lock (_controlSends)
        {
            Control.Send(type, payload);
        }
    }
}
