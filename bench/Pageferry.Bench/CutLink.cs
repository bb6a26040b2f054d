using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Pageferry.Bench;

/// <summary>A link between a source and a destination that can be cut and given back.</summary>
internal sealed class CutLink : IDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly IPEndPoint _target;
    private readonly List<Socket> _sockets = [];
    private readonly Lock _gate = new();
    private bool _isCut;
    private long _foundAt;

    /// <summary>Makes a link.</summary>
    /// <param name="target">Where the destination listens.</param>
    public CutLink(IPEndPoint target)
    {
        _target = target;
        _listener.Start();
        new Thread(Accept) { IsBackground = true }.Start();
    }

    /// <summary>Where the source finds it.</summary>
    public EndPoint EndPoint => _listener.LocalEndpoint;

    /// <summary>When somebody first connected since it was given back, by <see cref="Stopwatch"/>; 0 if nobody has.</summary>
    public long FoundAt => Volatile.Read(ref _foundAt);

    /// <summary>Cuts all connections, and lets nobody through.</summary>
    public void Cut()
    {
        lock (_gate)
        {
            _isCut = true;
            _sockets.ForEach(static socket => socket.Dispose());
            _sockets.Clear();
        }
    }

    /// <summary>Lets connections through again.</summary>
    public void GiveBack()
    {
        lock (_gate)
        {
            _isCut = false;
            _foundAt = 0;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _listener.Dispose();
        Cut();
    }

    private void Accept()
    {
        try
        {
            while (true)
            {
                Take(_listener.AcceptSocket());
            }
        }
        catch (SocketException)
        {
            // Disposed.
        }
    }

    private void Take(Socket source)
    {
        lock (_gate)
        {
            if (_isCut)
            {
                source.Dispose();
                return;
            }

            _foundAt = _foundAt == 0 ? Stopwatch.GetTimestamp() : _foundAt;
            var destination = new Socket(SocketType.Stream, ProtocolType.Tcp);
            destination.Connect(_target);
            source.NoDelay = destination.NoDelay = true;
            _sockets.AddRange([source, destination]);
            new Thread(() => Copy(source, destination)) { IsBackground = true }.Start();
            new Thread(() => Copy(destination, source)) { IsBackground = true }.Start();
        }
    }

    private static void Copy(Socket from, Socket to)
    {
        var buffer = new byte[64 << 10];
        try
        {
            for (int bytes = from.Receive(buffer); bytes > 0; bytes = from.Receive(buffer))
            {
                for (int sent = 0; sent < bytes;)
                {
                    sent += to.Send(buffer.AsSpan(sent, bytes - sent));
                }
            }

            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // Cut.
        }
    }
}
