using System.Net;
using System.Net.Sockets;
using Pageferry.Migration;

namespace Pageferry.Fuzz;

/// <summary>A connection whose peer takes no interest in what is sent.</summary>
internal sealed class Discarding : IDisposable
{
    private readonly Socket _peer = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

    internal Discarding()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        _peer.Connect(listener.LocalEndpoint);
        Connection = new PeerConnection(listener.AcceptSocket());
    }

    internal PeerConnection Connection { get; }

    public void Dispose()
    {
        Connection.Dispose();
        _peer.Dispose();
    }
}
