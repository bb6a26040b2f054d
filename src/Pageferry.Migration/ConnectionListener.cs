using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;

namespace Pageferry.Migration;

/// <summary>
/// Lets sources in. Whoever connects has a thread of its own, for a bounded time, in which it proves who it is and says what it wants; only
/// then does a session hear of it. So a stranger neither disturbs nor delays one.
/// </summary>
internal sealed class ConnectionListener : IDisposable
{
    /// <summary>How many connections may be in their handshake; the next one takes the place of another.</summary>
    internal const int MostHandshakes = 32;

    /// <summary>How long a control connection waits for a session that may be ending, as after a failure that its source has seen already.</summary>
    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(2);

    /// <summary>How much of what a stranger has sent is read, and how long, so that it gets to see why it was refused.</summary>
    private const int MostDrainedBytes = 64 << 10;

    private static readonly TimeSpan s_drain = TimeSpan.FromSeconds(1);

    private readonly Socket _socket;
    private readonly VersionRange _versions;
    private readonly MigrationSecurity? _security;
    private readonly ILogger? _logger;
    private readonly TimeSpan _patience;
    private readonly object _gate = new();

    /// <summary>The oldest first.</summary>
    private readonly List<Newcomer> _handshakes = [];
    private (PeerConnection Connection, Hello Hello, ushort Version)? _offered;
    private IncomingConnections? _session;
    private SessionId _held;
    private bool _takesOthers = true;
    private volatile bool _isDisposed;
    private long _loggedAt = long.MinValue;
    private long _notLogged;

    /// <summary>Listens, and begins to accept.</summary>
    /// <param name="listen">Where.</param>
    /// <param name="versions">The protocol versions to speak.</param>
    /// <param name="security">Who this side is and whom it trusts; null for connections without TLS.</param>
    /// <param name="logger">Hears of connections that were refused, once a second at most; null for nobody.</param>
    /// <param name="patience">How long a handshake may take, from the connection to the end of its hello.</param>
    /// <exception cref="SocketException">The port is in use.</exception>
    internal ConnectionListener(IPEndPoint listen, VersionRange versions, MigrationSecurity? security, ILogger? logger, TimeSpan patience)
        : this(Listen(listen), SessionId.None, versions, security, logger, patience)
    {
    }

    /// <summary>Begins to accept from a socket that listens.</summary>
    /// <param name="listening">The socket; owned by this.</param>
    /// <param name="held">The session of a guest that is here, if any: its source may have come back already.</param>
    /// <param name="versions">The protocol versions to speak.</param>
    /// <param name="security">Who this side is and whom it trusts; null for connections without TLS.</param>
    /// <param name="logger">Hears of connections that were refused, once a second at most; null for nobody.</param>
    /// <param name="patience">How long a handshake may take, from the connection to the end of its hello.</param>
    internal ConnectionListener(Socket listening, SessionId held, VersionRange versions, MigrationSecurity? security, ILogger? logger, TimeSpan patience)
    {
        _versions = versions;
        _security = security;
        _logger = logger;
        _patience = patience;
        _socket = listening;
        _held = held;
        EndPoint = (IPEndPoint)_socket.LocalEndPoint!;
        new Thread(AcceptAll) { IsBackground = true, Name = "listener" }.Start();
    }

    /// <summary>Where it listens.</summary>
    internal IPEndPoint EndPoint { get; }

    /// <summary>How many connections are in their handshake.</summary>
    internal int Handshakes
    {
        get
        {
            lock (_gate)
            {
                return _handshakes.Count;
            }
        }
    }

    /// <summary>Makes a socket that listens as a destination's does.</summary>
    /// <exception cref="SocketException">The port is in use.</exception>
    internal static Socket Listen(IPEndPoint listen)
    {
        var socket = new Socket(listen.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            socket.Bind(listen);
            socket.Listen(MostHandshakes);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Waits for a source that begins a session, for as long as it takes.</summary>
    /// <inheritdoc cref="AcceptControl(SessionId, bool, TimeSpan)"/>
    internal IncomingConnections AcceptControl() => AcceptControl(SessionId.None, takesOthers: true, Timeout.InfiniteTimeSpan)!;

    /// <summary>Waits for a source that begins a session, or comes back to one. One link at a time: it ends with its disposal.</summary>
    /// <param name="held">The session that a source may come back to, if any.</param>
    /// <param name="takesOthers">Whether a source may begin a session.</param>
    /// <param name="longest">How long to wait; <see cref="Timeout.InfiniteTimeSpan"/> for as long as it takes.</param>
    /// <returns>The link, of which the control connection is there and welcome; null if none came.</returns>
    /// <exception cref="ObjectDisposedException">The listener was disposed.</exception>
    internal IncomingConnections? AcceptControl(SessionId held, bool takesOthers, TimeSpan longest)
    {
        long until = longest == Timeout.InfiniteTimeSpan ? long.MaxValue : Environment.TickCount64 + (long)longest.TotalMilliseconds;
        while (AwaitControl(held, takesOthers, until) is { } session)
        {
            try
            {
                session.Control.Patience = MigrationSource.Patience;
                session.Control.Admit(WelcomeTo(session));
                return session;
            }
            catch (Exception failure)
            {
                // It was gone before it was let in, and is waited for on.
                Log(session.Control, MigrationSource.Describe(failure));
                session.Dispose();
            }
        }

        return null;
    }

    /// <summary>Waits until a connection has come to its session, or for a while.</summary>
    internal void WaitForChange(TimeSpan longest)
    {
        lock (_gate)
        {
            _ = Monitor.Wait(_gate, longest);
        }
    }

    /// <summary>A session has ended: the next source is welcome.</summary>
    internal void End(IncomingConnections session)
    {
        lock (_gate)
        {
            _session = _session == session ? null : _session;
            _held = session.Id;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Stops listening, and closes every connection that is not a session's.</summary>
    public void Dispose()
    {
        Newcomer[] strangers;
        PeerConnection? offered;
        lock (_gate)
        {
            _isDisposed = true;
            strangers = [.. _handshakes];
            offered = _offered?.Connection;
            _offered = null;
            Monitor.PulseAll(_gate);
        }

        _socket.Dispose();
        foreach (Newcomer stranger in strangers)
        {
            stranger.Connection.Shutdown();
        }

        offered?.TryPart("This destination stopped listening.");
        offered?.Dispose();
    }

    private IncomingConnections? AwaitControl(SessionId held, bool takesOthers, long until)
    {
        lock (_gate)
        {
            _held = held;
            _takesOthers = takesOthers;
            Monitor.PulseAll(_gate);
            while (_offered is null)
            {
                ObjectDisposedException.ThrowIf(_isDisposed, this);
                long left = until - Environment.TickCount64;
                if (left <= 0)
                {
                    return null;
                }

                _ = Monitor.Wait(_gate, (int)Math.Min(left, int.MaxValue));
            }

            _session = new IncomingConnections(this, _offered.Value.Connection, _offered.Value.Hello, _offered.Value.Version);
            _offered = null;
            return _session;
        }
    }

    private void AcceptAll()
    {
        while (!_isDisposed)
        {
            try
            {
                Begin(new Newcomer(new PeerConnection(_socket.Accept())));
            }
            catch (Exception failure) when (failure is SocketException or ObjectDisposedException or OutOfMemoryException)
            {
                // Disposed; or a connection that was gone at once; or no descriptor or thread is left, and some come free.
                if (!_isDisposed)
                {
                    Thread.Sleep(TimeSpan.FromMilliseconds(10));
                }
            }
        }
    }

    private void Begin(Newcomer newcomer)
    {
        lock (_gate)
        {
            if (_isDisposed)
            {
                newcomer.Connection.Dispose();
                return;
            }

            if (_handshakes.Count == MostHandshakes)
            {
                MakeRoom();
            }

            _handshakes.Add(newcomer);
        }

        try
        {
            new Thread(() => Handshake(newcomer)) { IsBackground = true, Name = "handshake" }.Start();
        }
        catch
        {
            Forget(newcomer);
            newcomer.Connection.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Has one go, so that nobody can keep all others out: of those that have sent nothing, if there are any, the oldest from the network that most of them come from.
    /// </summary>
    private void MakeRoom()
    {
        List<Newcomer> silent = _handshakes.FindAll(newcomer => newcomer.IsSilent);
        Newcomer leaving = (silent.Count > 0 ? silent : _handshakes).GroupBy(newcomer => newcomer.Network).MaxBy(network => network.Count())!.First();
        _ = _handshakes.Remove(leaving);
        leaving.Displace();
        Monitor.PulseAll(_gate);
    }

    private void Handshake(Newcomer newcomer)
    {
        PeerConnection connection = newcomer.Connection;
        bool isTaken = false;
        try
        {
            connection.Deadline = _patience;
            Secure(newcomer);
            Hello hello = connection.ReceiveHello(_versions, out ushort version);
            if (hello.Role == ConnectionRole.Control)
            {
                Offer(newcomer, hello, version);
            }
            else
            {
                Join(newcomer, hello);
            }

            isTaken = true;
        }
        catch (Exception failure)
        {
            Refuse(connection, newcomer.IsDisplaced ? Displaced().Message : MigrationSource.Describe(failure));
        }
        finally
        {
            Forget(newcomer);
            if (!isTaken)
            {
                connection.Dispose();
            }
        }
    }

    private void Secure(Newcomer newcomer)
    {
        PeerConnection connection = newcomer.Connection;
        bool isTls = connection.Peek() == TlsChannel.HandshakeRecord;
        newcomer.HasSpoken = true;
        if (_security is null)
        {
            if (isTls)
            {
                throw new ProtocolException("The source speaks TLS, this destination doesn't: it was started without --tls-cert, --tls-key and --tls-ca.");
            }
        }
        else if (isTls)
        {
            connection.SecureAsDestination(_security);
        }
        else
        {
            throw new ProtocolException("This destination takes sources under TLS only. Give vm migrate --tls-cert, --tls-key and --tls-ca.");
        }
    }

    private void Offer(Newcomer newcomer, Hello hello, ushort version)
    {
        long until = Environment.TickCount64 + (long)s_grace.TotalMilliseconds;
        lock (_gate)
        {
            if (!hello.Session.IsNone)
            {
                EndLinkOf(hello.Session);
            }

            while ((_session is not null || _offered is not null) && !_isDisposed && !newcomer.IsDisplaced)
            {
                long left = until - Environment.TickCount64;
                if (left <= 0)
                {
                    throw new ProtocolException("Another migration is under way here.");
                }

                _ = Monitor.Wait(_gate, TimeSpan.FromMilliseconds(left));
            }

            if (_isDisposed)
            {
                throw new ProtocolException("This destination stopped listening.");
            }

            if (hello.Session.IsNone && !_takesOthers)
            {
                throw new ProtocolException("This destination holds a guest whose source may come back.");
            }

            Leave(newcomer);
            _offered = (newcomer.Connection, hello, version);
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>A source comes back: the link that it lost has ended, whether or not this side has noticed yet.</summary>
    private void EndLinkOf(SessionId session)
    {
        bool isCurrent = _session is not null && _session.Id.Matches(session);
        if (!isCurrent && (_held.IsNone || !_held.Matches(session)))
        {
            throw new ProtocolException("A source came back to a session that is not known here: this destination was started anew, or has ended the session.");
        }

        if (isCurrent)
        {
            _session!.Shutdown();
        }
    }

    private void Join(Newcomer newcomer, Hello hello)
    {
        IncomingConnections? session;
        lock (_gate)
        {
            session = _session;
        }

        if (session is null || !session.Id.Matches(hello.Session))
        {
            throw new ProtocolException($"A {hello.Role} connection came that names no session of this destination.");
        }

        lock (_gate)
        {
            Leave(newcomer);
        }

        session.Join(newcomer.Connection, hello, WelcomeTo(session));
        lock (_gate)
        {
            Monitor.PulseAll(_gate);
        }
    }

    private Welcome WelcomeTo(IncomingConnections session) => new(_versions, session.Version, session.Id);

    private void Refuse(PeerConnection connection, string reason)
    {
        Log(connection, reason);
        connection.TryPart(reason);
        connection.Linger(s_drain, MostDrainedBytes);
    }

    private void Log(PeerConnection connection, string reason)
    {
        if (_logger is null || _isDisposed)
        {
            return;
        }

        long others;
        lock (_gate)
        {
            long now = Environment.TickCount64;
            if (_loggedAt != long.MinValue && now - _loggedAt < TimeSpan.MillisecondsPerSecond)
            {
                _notLogged++;
                return;
            }

            _loggedAt = now;
            others = _notLogged;
            _notLogged = 0;
        }

        MigrationLog.Refused(_logger, connection.PeerName, reason, others > 0 ? $" {others} others were refused since the last such line." : string.Empty);
    }

    private void Forget(Newcomer newcomer)
    {
        lock (_gate)
        {
            _ = _handshakes.Remove(newcomer);
        }
    }

    /// <summary>It has shown who it is, and makes room for nobody any more.</summary>
    private void Leave(Newcomer newcomer)
    {
        if (!_handshakes.Remove(newcomer))
        {
            throw Displaced();
        }
    }

    private static ProtocolException Displaced() => new("Too many connections are in their handshake here, and this one made room for another.");
}
