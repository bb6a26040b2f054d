using System.Net;
using System.Net.Sockets;
using Pageferry.Migration;

namespace Pageferry.Fuzz;

/// <summary>Bytes as a connection brings them.</summary>
internal static class Loopback
{
    private static readonly TcpListener s_listener = Listen();

    /// <summary>Has a connection read that bytes came on, after which the peer ended it.</summary>
    internal static void Feed(byte[] bytes, Action<PeerConnection> read)
    {
        using var peer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        peer.Connect(s_listener.LocalEndpoint);
        using var connection = new PeerConnection(s_listener.AcceptSocket()) { Patience = TimeSpan.FromSeconds(5) };
        _ = peer.Send(bytes);
        peer.Shutdown(SocketShutdown.Send);
        read(connection);
    }

    private static TcpListener Listen()
    {
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return listener;
    }
}
