using System.Net;
using System.Net.Sockets;

namespace Pageferry.Migration.Tests;

/// <summary>Stands between a source and a destination. What it cuts can be made again: it goes on taking connections.</summary>
internal sealed class Relay : IDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly ManualResetEventSlim _flows = new(initialState: true);
    private readonly EndPoint _target;
    private readonly List<Socket> _sockets = [];
    private readonly Lock _lock = new();
    private long _toDestination = long.MaxValue / 2;
    private long _toSource = long.MaxValue / 2;
    private long _againAfter = long.MaxValue / 2;
    private long _untilDamage = long.MaxValue / 2;
    private long _untilHold = long.MaxValue / 2;
    private TimeSpan _hold;
    private byte[]? _lost;
    private int _cuts;
    private volatile bool _isRefusing;

    internal Relay(EndPoint target)
    {
        _target = target;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen();
        EndPoint = _listener.LocalEndPoint!;
        Start(AcceptAll);
    }

    internal EndPoint EndPoint { get; }

    /// <summary>How often it has cut.</summary>
    internal int Cuts => Volatile.Read(ref _cuts);

    /// <summary>Whether connections that come are closed at once.</summary>
    internal bool IsRefusing
    {
        set => _isRefusing = value;
    }

    /// <summary>Whether bytes go on; while they don't, connections look alive and are silent.</summary>
    internal bool IsFlowing
    {
        set
        {
            if (value)
            {
                _flows.Set();
            }
            else
            {
                _flows.Reset();
            }
        }
    }

    /// <summary>Cuts all connections once, when so many bytes have gone one way from now on, over all of them; or again and again.</summary>
    internal void CutAfter(long toDestination = long.MaxValue / 2, long toSource = long.MaxValue / 2, long againAfter = long.MaxValue / 2)
    {
        _againAfter = againAfter;
        Volatile.Write(ref _toDestination, toDestination);
        Volatile.Write(ref _toSource, toSource);
    }

    /// <summary>Cuts all connections in place of letting a short message through to the destination, once.</summary>
    internal void Lose(byte[] message) => _lost = message;

    /// <summary>Damages one byte that goes to the destination: that behind so many from now on, over all connections.</summary>
    internal void DamageAfter(long bytes) => Volatile.Write(ref _untilDamage, bytes);

    /// <summary>Holds up once what goes to the destination behind so many bytes from now on.</summary>
    internal void HoldAfter(long bytes, TimeSpan time)
    {
        _hold = time;
        Volatile.Write(ref _untilHold, bytes);
    }

    /// <summary>Cuts all connections that there are.</summary>
    internal void Cut()
    {
        TakeAll().ForEach(socket => socket.Dispose());
    }

    public void Dispose()
    {
        _listener.Dispose();
        Cut();
        IsFlowing = true;
    }

    private static void Start(Action work) => new Thread(() =>
    {
        try
        {
            work();
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // Cut.
        }
    })
    { IsBackground = true }.Start();

    private List<Socket> TakeAll()
    {
        lock (_lock)
        {
            _cuts++;
            List<Socket> all = [.. _sockets];
            _sockets.Clear();
            CutAfter(toDestination: _againAfter, againAfter: _againAfter);
            return all;
        }
    }

    private void AcceptAll()
    {
        while (true)
        {
            Socket source = _listener.Accept();
            if (_isRefusing)
            {
                source.Dispose();
                continue;
            }

            source.NoDelay = true;
            var destination = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            lock (_lock)
            {
                _sockets.Add(source);
                _sockets.Add(destination);
            }

            destination.Connect(_target);
            Start(() => Pump(source, destination, ref _toDestination));
            Start(() => Pump(destination, source, ref _toSource));
        }
    }

    private void Pump(Socket from, Socket to, ref long left)
    {
        var buffer = new byte[64 << 10];
        while (true)
        {
            int received = from.Receive(buffer);
            _flows.Wait();
            if (to.RemoteEndPoint!.Equals(_target))
            {
                if (_lost is { } lost && received <= 8 * lost.Length && buffer.AsSpan(0, received).IndexOf(lost) >= 0)
                {
                    _lost = null;
                    TakeAll().ForEach(socket => socket.Dispose());
                    return;
                }

                long holdAt = Interlocked.Add(ref _untilHold, -received) + received;
                if (holdAt >= 0 && holdAt < received)
                {
                    Thread.Sleep(_hold);
                }

                long at = Interlocked.Add(ref _untilDamage, -received) + received;
                if (at >= 0 && at < received)
                {
                    buffer[at] ^= 0x10;
                }
            }

            if (received == 0)
            {
                to.Shutdown(SocketShutdown.Send);
                return;
            }

            long allowed = Math.Min(received, Interlocked.Add(ref left, -received) + received);
            if (allowed > 0)
            {
                _ = to.Send(buffer.AsSpan(0, (int)allowed));
            }

            if (allowed < received)
            {
                // What was let through is to arrive: a reset would take it back.
                List<Socket> cut = TakeAll();
                to.Shutdown(SocketShutdown.Send);
                Thread.Sleep(5);
                cut.ForEach(socket => socket.Dispose());
                return;
            }
        }
    }
}
