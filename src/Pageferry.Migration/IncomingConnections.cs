namespace Pageferry.Migration;

/// <summary>The connections of one session at the destination: its control connection first, the others when <see cref="AcceptRest"/> has returned.</summary>
internal sealed class IncomingConnections : IDisposable
{
    /// <summary>How often the control connection is looked at while the others are awaited.</summary>
    private static readonly TimeSpan s_glance = TimeSpan.FromMilliseconds(20);

    private readonly ConnectionListener _listener;
    private readonly Lock _lock = new();
    private readonly PeerConnection?[] _background;
    private readonly bool[] _claimed;
    private PeerConnection? _demand;
    private Heartbeat? _heartbeat;
    private bool _demandClaimed;
    private bool _isEnded;

    internal IncomingConnections(ConnectionListener listener, PeerConnection control, Hello hello, ushort version)
    {
        _listener = listener;
        Control = control;
        Version = version;
        IsResumed = !hello.Session.IsNone;
        Id = IsResumed ? hello.Session : SessionId.Create();
        _background = new PeerConnection?[hello.BackgroundWanted];
        _claimed = new bool[hello.BackgroundWanted];
    }

    /// <summary>The session's id, which its control connection alone is told.</summary>
    internal SessionId Id { get; }

    /// <summary>Whether the source came back to a session that was here before.</summary>
    internal bool IsResumed { get; }

    /// <summary>The protocol version to speak.</summary>
    internal ushort Version { get; }

    /// <summary>The control connection.</summary>
    internal PeerConnection Control { get; }

    /// <summary>The demand connection.</summary>
    internal PeerConnection Demand => _demand!;

    /// <summary>The background connections, as many as the source asked for.</summary>
    internal IReadOnlyList<PeerConnection> Background => _background!;

    /// <summary>All there are so far, the control connection first.</summary>
    internal IReadOnlyList<PeerConnection> All
    {
        get
        {
            lock (_lock)
            {
                return [Control, .. _demand is null ? [] : (PeerConnection[])[_demand], .. _background.OfType<PeerConnection>()];
            }
        }
    }

    /// <summary>Waits until the source has opened the session's other connections.</summary>
    /// <param name="patience">How long at most.</param>
    /// <exception cref="ProtocolException">It did not, or parted.</exception>
    /// <exception cref="EndOfStreamException">It closed the control connection.</exception>
    internal void AcceptRest(TimeSpan patience)
    {
        long deadline = Environment.TickCount64 + (long)patience.TotalMilliseconds;
        while (true)
        {
            int missing;
            bool allClaimed;
            lock (_lock)
            {
                missing = (_demand is null ? 1 : 0) + _background.Count(connection => connection is null);
                allClaimed = _demandClaimed && !_claimed.Contains(value: false);
            }

            if (missing == 0)
            {
                return;
            }

            // A source says nothing here before all its connections are welcome, unless it parts or has gone.
            if (!allClaimed && Control.Socket.Poll(TimeSpan.Zero, System.Net.Sockets.SelectMode.SelectRead))
            {
                (MessageType type, _) = Control.ReceiveHeader();
                throw new ProtocolException($"The source sent a frame {type} before it had opened its demand and background connections.");
            }

            if (Environment.TickCount64 >= deadline)
            {
                throw new ProtocolException($"The source did not open its demand and background connections within {patience.TotalSeconds:F0} s: {missing} of {1 + _background.Length} are missing.");
            }

            _listener.WaitForChange(s_glance);
        }
    }

    /// <summary>From now on silence means that the link is lost.</summary>
    /// <param name="longest">How long a connection may be silent.</param>
    internal void ExpectLife(TimeSpan longest)
    {
        foreach (PeerConnection connection in All)
        {
            connection.Patience = longest;
        }

        _heartbeat = new Heartbeat(All);
    }

    /// <summary>Ends the connections, so that who waits in one notices; they are still to be disposed.</summary>
    internal void Shutdown()
    {
        foreach (PeerConnection connection in All)
        {
            connection.Shutdown();
        }
    }

    /// <summary>Takes a connection that names this session, if it is due, and welcomes it.</summary>
    /// <param name="connection">The connection; it belongs to the session if it is taken.</param>
    /// <param name="hello">What it said.</param>
    /// <param name="welcome">What to answer.</param>
    /// <exception cref="ProtocolException">It is not due.</exception>
    internal void Join(PeerConnection connection, Hello hello, Welcome welcome)
    {
        Claim(hello, isClaimed: true);
        try
        {
            connection.Admit(welcome);
            connection.Patience = MigrationSource.Patience;
        }
        catch
        {
            Claim(hello, isClaimed: false);
            throw;
        }

        lock (_lock)
        {
            if (_isEnded)
            {
                throw new ProtocolException("The session ended meanwhile.");
            }

            if (hello.Role == ConnectionRole.Demand)
            {
                _demand = connection;
            }
            else
            {
                _background[hello.Index] = connection;
            }
        }
    }

    /// <summary>Closes the connections; the destination can take another session.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _isEnded = true;
        }

        Shutdown();
        _heartbeat?.Dispose();
        foreach (PeerConnection connection in All)
        {
            connection.Dispose();
        }

        _listener.End(this);
    }

    private void Claim(Hello hello, bool isClaimed)
    {
        lock (_lock)
        {
            bool isDue = !_isEnded && (hello.Role == ConnectionRole.Demand ? !_demandClaimed : hello.Index < _claimed.Length && !_claimed[hello.Index]);
            if (isClaimed && !isDue)
            {
                throw new ProtocolException($"This session's {hello.Role} connection {hello.Index} is not due.");
            }

            if (hello.Role == ConnectionRole.Demand)
            {
                _demandClaimed = isClaimed;
            }
            else
            {
                _claimed[hello.Index] = isClaimed;
            }
        }
    }
}
