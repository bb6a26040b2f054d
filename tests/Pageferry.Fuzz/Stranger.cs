using System.Net;
using System.Net.Sockets;

namespace Pageferry.Fuzz;

/// <summary>Somebody who says something to a server, listens to whatever comes back, and goes.</summary>
internal static class Stranger
{
    internal static void Say(IPEndPoint server, byte[] input)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 5000 };
        socket.Connect(server);
        try
        {
            _ = socket.Send(input);
            socket.Shutdown(SocketShutdown.Send);
            var answer = new byte[4096];
            while (socket.Receive(answer) > 0)
            {
                // Until the end.
            }
        }
        catch (SocketException failure) when (failure.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown)
        {
            // It did not want to hear more.
        }
    }
}
