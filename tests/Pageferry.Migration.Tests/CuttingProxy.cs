using System.Net;
using System.Net.Sockets;

namespace Pageferry.Migration.Tests;

/// <summary>Stands between a source and a destination and cuts every connection when so many bytes have gone one way, over all of them.</summary>
internal sealed class CuttingProxy : IDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly EndPoint _target;
    private readonly List<Socket> _sockets = [];
    private readonly Lock _lock = new();
    private long _toDestination;
    private long _toSource;
    private bool _isCut;

    /// <summary>Starts.</summary>
    /// <param name="target">Where the destination listens.</param>
    /// <param name="toDestination">Bytes that may go from the source to the destination.</param>
    /// <param name="toSource">Bytes that may go from the destination to the source.</param>
    public CuttingProxy(EndPoint target, long toDestination = long.MaxValue, long toSource = long.MaxValue)
    {
        _target = target;
        _toDestination = toDestination;
        _toSource = toSource;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen();
        EndPoint = _listener.LocalEndPoint!;
        Start(AcceptAll);
    }

    public EndPoint EndPoint { get; }

    public void Cut()
    {
        lock (_lock)
        {
            _isCut = true;
            _sockets.ForEach(socket => socket.Dispose());
        }
    }

    public void Dispose()
    {
        Cut();
        _listener.Dispose();
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

    private void AcceptAll()
    {
        while (true)
        {
            Socket source = Keep(_listener.Accept());
            Socket destination = Keep(new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true });
            source.NoDelay = true;
            destination.Connect(_target);
            Start(() => Pump(source, destination, ref _toDestination));
            Start(() => Pump(destination, source, ref _toSource));
        }
    }

    private Socket Keep(Socket socket)
    {
        lock (_lock)
        {
            _sockets.Add(socket);
            if (_isCut)
            {
                socket.Dispose();
            }
        }

        return socket;
    }

    private void Pump(Socket from, Socket to, ref long left)
    {
        var buffer = new byte[64 << 10];
        while (true)
        {
            int received = from.Receive(buffer);
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
                to.Shutdown(SocketShutdown.Send);
                Thread.Sleep(5);
                Cut();
                return;
            }
        }
    }
}
