using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>One guest's arrival, from its first connection to its last page.</summary>
internal sealed class IncomingSession(Func<MigrationLayout, IArrivingGuest> prepare) : IDisposable
{
    private readonly Lock _controlSends = new();
    private IncomingConnections? _connections;
    private PeerConnection? _control;
    private PeerConnection? _demand;
    private PeerConnection? _background;
    private IArrivingGuest? _guest;
    private FaultEngine? _engine;

    internal MigrationCounters Counters { get; } = new() { Phase = MigrationPhase.Waiting };

    internal bool SwitchedOver { get; private set; }

    internal Action<FaultEngine>? EngineStarted { get; set; }

    /// <summary>Accepts the session's connections.</summary>
    internal void Accept(ConnectionListener listener)
    {
        _connections = listener.AcceptControl();
        _connections.AcceptRest(MigrationSource.Patience);
        if (_connections.Background.Count != 1)
        {
            throw new ProtocolException($"The source wants {_connections.Background.Count} background connections; this build takes one.");
        }

        _control = _connections.Control;
        _demand = _connections.Demand;
        _background = _connections.Background[0];
    }

    /// <summary>From the layout to the last page.</summary>
    internal void Migrate(Action<IArrivingGuest> arrived)
    {
        Counters.Phase = MigrationPhase.Preparing;
        var layout = MigrationLayout.Deserialize(_control!.Receive(MessageType.Layout, MigrationLayout.MostBytes));
        _guest = prepare(layout);
        Counters.PagesTotal = (long)_guest.Engine.Memory.PageCount;
        var threads = new PageThreads(_connections!.All);
        _engine = _guest.Engine;
        _engine.Start(new DemandRequester(_demand!, threads.Fail));
        EngineStarted?.Invoke(_engine);
        var demand = new PageReceiver(_demand!, _engine, Counters, ConnectionRole.Demand);
        var background = new PageReceiver(_background!, _engine, Counters, ConnectionRole.Background);
        SendControl(MessageType.Armed);

        byte[] state = _control.Receive(MessageType.MachineState, MigrationSource.MostStateBytes);
        Counters.Phase = MigrationPhase.SwitchingOver;
        _guest.LoadState(state);
        SendControl(MessageType.StateLoaded);
        _ = _control.Receive(MessageType.Start, 0);

        SwitchedOver = true;
        Counters.Phase = MigrationPhase.PostCopy;
        foreach (PeerConnection connection in _connections.All)
        {
            connection.Patience = TimeSpan.Zero;
        }

        threads.Start("demand pages", demand.ReceiveAll);
        _guest.Start(() => TellRunning(threads));
        threads.Start("background pages", background.ReceiveAll);
        arrived(_guest);
        threads.Start("control", () => _ = _control.Receive(MessageType.Released, 0));
        try
        {
            threads.Run(() => Complete(threads));
            Counters.Phase = MigrationPhase.Completed;
        }
        catch
        {
            Counters.Phase = MigrationPhase.Stalled;
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

    private void Complete(PageThreads threads)
    {
        if (Task.WaitAny(_engine!.Completed, threads.Failed, _engine.Failed) != 0)
        {
            if (_engine.Failed.IsCompleted)
            {
                threads.Fail(_engine.Failed.Result);
            }

            return;
        }

        // Every page is present or known to be zero. Whoever still waits touches its page again and finds it without us.
        threads.Finish();
        _engine.Stop();
        _engine.Memory.Unregister();
        SendControl(MessageType.Complete);
        threads.Join("control");
    }

    private void TellRunning(PageThreads threads)
    {
        try
        {
            SendControl(MessageType.Running);
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            threads.Fail(failure);
        }
    }

    private void SendControl(MessageType type)
    {
        lock (_controlSends)
        {
            _control!.Send(type, []);
        }
    }
}
