using System.Net;
using System.Net.Sockets;

namespace Pageferry.Criu.Tests;

/// <summary>A client of the page-server protocol that says whatever a test wants.</summary>
internal sealed class PageServerClient : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 30_000 };
    private readonly PageServerForm _form;

    internal PageServerClient(IPEndPoint server, PageServerForm form)
    {
        _form = form;
        _socket.Connect(server);
    }

    internal void Send(params PageServerMessage[] messages)
    {
        int length = PageServerMessage.BytesOf(_form);
        var bytes = new byte[messages.Length * length];
        for (int i = 0; i < messages.Length; i++)
        {
            messages[i].Write(bytes.AsSpan(i * length), _form);
        }

        SendBytes(bytes);
    }

    internal void SendBytes(ReadOnlySpan<byte> bytes) => _ = _socket.Send(bytes);

    internal PageServerMessage ReceiveHeader() => PageServerMessage.Read(Receive(PageServerMessage.BytesOf(_form)), _form);

    internal byte[] Receive(int length)
    {
        var bytes = new byte[length];
        for (int at = 0; at < length;)
        {
            int received = _socket.Receive(bytes.AsSpan(at));
            at += received > 0 ? received : throw new EndOfStreamException($"The server closed the connection after {at} of {length} bytes.");
        }

        return bytes;
    }

    /// <summary>Sends no more.</summary>
    internal void End() => _socket.Shutdown(SocketShutdown.Send);

    /// <summary>Whether the server ends the connection and says nothing more.</summary>
    internal bool IsEnded()
    {
        try
        {
            return _socket.Receive(new byte[1]) == 0;
        }
        catch (SocketException reset) when (reset.SocketErrorCode == SocketError.ConnectionReset)
        {
            return true;
        }
    }

    public void Dispose() => _socket.Dispose();
}
