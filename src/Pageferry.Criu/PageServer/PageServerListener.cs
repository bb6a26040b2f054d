using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;

namespace Pageferry.Criu;

/// <summary>Accepts clients of the page-server protocol, each on a thread of its own, and no more than a number of them at once.</summary>
internal sealed class PageServerListener : IDisposable
{
    /// <summary>The most connections at once. When all are taken, the one that has been silent for longest since it came makes room for the next.</summary>
    internal const int MostConnections = 256;

    private const int StackBytes = 256 << 10;

    private readonly Socket _socket;
    private readonly Action<PageServerConnection> _serve;
    private readonly ILogger? _logger;
    private readonly Lock _gate = new();
    private readonly LinkedList<PageServerConnection> _connections = [];
    private volatile bool _isDisposed;

    /// <summary>Listens; nobody is accepted before <see cref="Start"/>.</summary>
    /// <param name="listen">Where; port 0 for one that the kernel picks.</param>
    /// <param name="serve">Serves a connection to its end, on its thread. What it throws is logged.</param>
    /// <param name="logger">Hears of connections; null for nobody.</param>
    /// <exception cref="SocketException">The port is in use, or the address is not one of this host.</exception>
    internal PageServerListener(IPEndPoint listen, Action<PageServerConnection> serve, ILogger? logger)
    {
        _serve = serve;
        _logger = logger;
        _socket = new Socket(listen.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            _socket.Bind(listen);
            _socket.Listen(MostConnections);
        }
        catch
        {
            _socket.Dispose();
            throw;
        }

        EndPoint = (IPEndPoint)_socket.LocalEndPoint!;
    }

    /// <summary>Where it listens.</summary>
    internal IPEndPoint EndPoint { get; }

    /// <summary>Begins to accept.</summary>
    internal void Start() => new Thread(AcceptAll) { IsBackground = true, Name = "page-server" }.Start();

    /// <summary>Stops listening and ends all connections.</summary>
    public void Dispose()
    {
        _isDisposed = true;
        _socket.Dispose();
        lock (_gate)
        {
            foreach (PageServerConnection connection in _connections)
            {
                connection.Shutdown();
            }
        }
    }

    private void AcceptAll()
    {
        while (!_isDisposed)
        {
            try
            {
                Begin(new PageServerConnection(_socket.Accept()));
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

    private void Begin(PageServerConnection connection)
    {
        LinkedListNode<PageServerConnection> entry;
        lock (_gate)
        {
            if (_isDisposed || (_connections.Count >= MostConnections && !MakeRoom()))
            {
                connection.Dispose();
                return;
            }

            entry = _connections.AddLast(connection);
        }

        try
        {
            new Thread(() => Serve(entry), StackBytes) { IsBackground = true, Name = "page-client" }.Start();
        }
        catch
        {
            End(entry);
            throw;
        }
    }

    /// <summary>Ends a connection over which nothing sensible has come yet. Called under the lock.</summary>
    private bool MakeRoom()
    {
        for (LinkedListNode<PageServerConnection>? entry = _connections.First; entry is not null; entry = entry.Next)
        {
            if (!entry.Value.HasSpoken)
            {
                entry.Value.Shutdown();
                _connections.Remove(entry);
                return true;
            }
        }

        if (_logger is not null)
        {
            PageServerLog.Full(_logger, MostConnections);
        }

        return false;
    }

    private void Serve(LinkedListNode<PageServerConnection> entry)
    {
        try
        {
            _serve(entry.Value);
        }
        catch (Exception failure) when (failure is IOException or SocketException or UnauthorizedAccessException or ObjectDisposedException)
        {
            if (_logger is not null && !_isDisposed)
            {
                PageServerLog.Ended(_logger, entry.Value.Peer, failure.Message);
            }
        }
        finally
        {
            End(entry);
        }
    }

    private void End(LinkedListNode<PageServerConnection> entry)
    {
        lock (_gate)
        {
            if (entry.List is not null)
            {
                _connections.Remove(entry);
            }
        }

        entry.Value.Dispose();
    }
}
