using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>One guest's arrival, from its first connection to its last page.</summary>
internal sealed class IncomingSession(Func<MigrationLayout, IArrivingGuest> prepare, TimeSpan longestSilence) : IDisposable
{
    /// <summary>How long a guest whose memory is whole may take to be known to have executed.</summary>
    private static readonly TimeSpan s_firstInstruction = TimeSpan.FromSeconds(1);

    private readonly Lock _controlSends = new();
    private readonly TaskCompletionSource _running = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private IncomingConnections? _connections;
    private PeerConnection? _control;
    private IArrivingGuest? _guest;
    private FaultEngine? _engine;
    private IncomingPages? _pages;
    private PageThreads? _threads;

    internal MigrationCounters Counters { get; } = new() { Phase = MigrationPhase.Waiting };

    internal bool SwitchedOver { get; private set; }

    /// <summary>The source's address; null before it is heard.</summary>
    internal EndPoint? Peer => _control?.Socket.RemoteEndPoint;

    internal Action<FaultEngine>? EngineStarted { get; set; }

    /// <summary>Accepts the session's connections.</summary>
    internal void Accept(ConnectionListener listener)
    {
        _connections = listener.AcceptControl();
        _connections.AcceptRest(MigrationSource.Patience);
        _control = _connections.Control;
        Counters.ProtocolVersion = _connections.Version;
    }

    /// <summary>From the layout to the last page.</summary>
    internal void Migrate(Action<IArrivingGuest> arrived)
    {
        Counters.Phase = MigrationPhase.Preparing;
        var layout = MigrationLayout.Deserialize(_control!.Receive(MessageType.Layout, MigrationLayout.MostBytes));
        _guest = prepare(layout);
        _engine = _guest.Engine;
        Counters.PagesTotal = (long)_engine.Memory.PageCount;
        Counters.Recording?.Begin(Counters.PagesTotal);
        _threads = new PageThreads(_connections!.All);
        var requester = new DemandRequester(_connections.Demand, _threads.Fail);
        _engine.Start(requester);
        EngineStarted?.Invoke(_engine);
        _pages = new IncomingPages(_engine, Counters, requester, _connections.Background.Count, layout.Validate) { RoundDone = TellRoundDone };
        SendControl(MessageType.Armed);
        foreach (PeerConnection connection in _connections.All)
        {
            // Rounds take as long as they take.
            connection.Patience = TimeSpan.Zero;
        }

        foreach (PeerConnection background in _connections.Background)
        {
            Receive(background, ConnectionRole.Background);
        }

        using var watch = new SilenceWatch(longestSilence, () => Counters.Bytes, _threads.Fail);
        try
        {
            _threads.Run(() =>
            {
                SwitchOver(arrived, watch);
                Complete(layout.Backing);
            });
            Counters.Phase = MigrationPhase.Completed;
        }
        catch
        {
            Counters.Phase = SwitchedOver ? MigrationPhase.Stalled : Counters.Phase;
            throw;
        }
    }

    /// <summary>Tells the source why it is turned away.</summary>
    internal void Part(string reason)
    {
        foreach (PeerConnection connection in _connections?.All ?? [])
        {
            connection.TryPart(reason);
        }
    }

    /// <summary>Closes the connections. A guest that has not switched over goes with them; one that has stays, and its engine with it.</summary>
    public void Dispose()
    {
        _connections?.Dispose();
        if (!SwitchedOver)
        {
            _engine?.Dispose();
            _guest?.Dispose();
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
                finally
                {
                    _pages!.End();
                }
            });
        }
    }

    private void SwitchOver(Action<IArrivingGuest> arrived, SilenceWatch watch)
    {
        SwitchoverMessage message = AwaitSwitchover(watch);
        Counters.Phase = MigrationPhase.SwitchingOver;
        _pages!.SwitchOver(message.Generation);
        Discard(message.OutOfDate.Span);
        _guest!.LoadState(message.State.Span);

        // From here on the source may have let go of the guest: its word is waited for as long as it takes.
        watch.End();
        SendControl(MessageType.StateLoaded);
        _ = _control!.Receive(MessageType.Start, 0);

        SwitchedOver = true;
        Counters.Phase = MigrationPhase.PostCopy;
        Counters.BeginBackground();
        Receive(_connections!.Demand, ConnectionRole.Demand);
        _guest.Start(message.IsPaused, TellRunning);
        if (message.IsPaused)
        {
            TellRunning();
        }

        arrived(_guest);
    }

    /// <summary>Takes in what is said until the guest has stopped at the source.</summary>
    private SwitchoverMessage AwaitSwitchover(SilenceWatch watch)
    {
        while (true)
        {
            (MessageType type, int bytes) = _control!.ReceiveHeader();
            bool isSwitchover = type == MessageType.Switchover;
            if ((!isSwitchover && type != MessageType.Discard) || bytes > (isSwitchover ? SwitchoverMessage.MostBytes : RunCoding.MostMessageBytes))
            {
                throw new ProtocolException($"The source sent a frame {type} of {bytes} bytes before the switchover.");
            }

            var payload = new byte[bytes];
            _control.ReceiveAll(payload);
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

    private void Complete(GuestBacking sourceBacking)
    {
        _threads!.Start("control", () => _ = _control!.Receive(MessageType.Released, 0));
        if (Task.WaitAny(_engine!.Completed, _threads.Failed, _engine.Failed) != 0)
        {
            if (_engine.Failed.IsCompleted)
            {
                _threads.Fail(_engine.Failed.Result);
            }

            return;
        }

        // The source hears that the guest runs before it hears that all is here, also if the guest stands in a loop in which nothing is seen of it.
        _ = _running.Task.Wait(s_firstInstruction);
        TellRunning();

        // Every page is present or known to be zero. Whoever still waits touches its page again and finds it without us.
        _threads.Finish();
        _engine.Stop();
        _engine.Memory.Unregister();
        SendControl(MessageType.Complete);
        _pages!.Digests?.Send((type, payload) => SendControl(type, payload.Span));
        _threads.Join("control");
        if (sourceBacking == GuestBacking.Memfd2M && _engine.Memory.Backing != GuestBacking.Memfd2M)
        {
            // It had huge pages there, and took as much memory as it can take here. Not earlier: no page that is waited for is to wait for that.
            _engine.Memory.BeginCollapse();
        }
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
                if (!_running.Task.IsCompleted)
                {
                    _control!.Send(MessageType.Running, []);
                    _running.SetResult();
                }
            }
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            _threads!.Fail(failure);
        }
    }

    private void SendControl(MessageType type, ReadOnlySpan<byte> payload = default)
    {
        lock (_controlSends)
        {
            _control!.Send(type, payload);
        }
    }
}
