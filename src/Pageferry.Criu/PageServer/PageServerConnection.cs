using System.Net;
using System.Net.Sockets;

namespace Pageferry.Criu;

/// <summary>One connection of a client of the page-server protocol. Its thread uses it; anybody may shut it down.</summary>
internal sealed class PageServerConnection : IDisposable
{
    /// <summary>How long the rest of a message may take to come, and what is sent to be taken.</summary>
    internal static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly Socket _socket;
    private bool _hasSpoken;

    /// <summary>Takes over a socket.</summary>
    internal PageServerConnection(Socket socket)
    {
        _socket = socket;
        _socket.NoDelay = true;
        // A restore may ask for nothing for days; a host that is gone answers nothing either.
        _socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        _socket.SendTimeout = (int)Patience.TotalMilliseconds;
        Peer = _socket.RemoteEndPoint;
    }

    /// <summary>Who is at the other end.</summary>
    internal EndPoint? Peer { get; }

    /// <summary>Whether a message has come that made sense: the connection is no stranger's.</summary>
    internal bool HasSpoken { get => Volatile.Read(ref _hasSpoken); set => Volatile.Write(ref _hasSpoken, value); }

    /// <summary>The form of the headers, known when the first one has come.</summary>
    internal PageServerForm? Form { get; private set; }

    /// <summary>Waits for a message, as long as it takes to begin.</summary>
    /// <param name="formOfFirst">Tells the form by the first 24 bytes of the first message.</param>
    /// <param name="message">The message.</param>
    /// <returns>False if the peer closed the connection between two messages.</returns>
    /// <exception cref="PageServerException">The peer went in the middle of a message, or the first one is in no known form.</exception>
    /// <exception cref="SocketException">The connection failed, or the rest of a message did not come in time.</exception>
    internal bool TryReceive(Func<ReadOnlySpan<byte>, PageServerForm?> formOfFirst, out PageServerMessage message)
    {
        Span<byte> header = stackalloc byte[PageServerMessage.MostBytes];
        _socket.ReceiveTimeout = 0;
        int received = _socket.Receive(header[..PageServerMessage.LeastBytes]);
        message = default;
        if (received == 0)
        {
            return false;
        }

        _socket.ReceiveTimeout = (int)Patience.TotalMilliseconds;
        Receive(header[received..PageServerMessage.LeastBytes]);
        Form ??= formOfFirst(header[..PageServerMessage.LeastBytes])
            ?? throw new PageServerException("The first message is none of CRIU's page-server protocol. Is the client a 'criu lazy-pages', and without --tls?");
        Receive(header[PageServerMessage.LeastBytes..PageServerMessage.BytesOf(Form.Value)]);
        message = PageServerMessage.Read(header, Form.Value);
        return true;
    }

    /// <summary>Receives bytes that belong to the last message.</summary>
    /// <param name="bytes">Filled to its end.</param>
    /// <exception cref="PageServerException">The peer closed the connection.</exception>
    internal void Receive(Span<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            int received = _socket.Receive(bytes);
            bytes = received > 0 ? bytes[received..] : throw new PageServerException("The client closed the connection in the middle of a message.");
        }
    }

    /// <summary>Sends bytes.</summary>
    /// <exception cref="SocketException">The connection failed, or the peer takes nothing.</exception>
    internal void Send(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            bytes = bytes[_socket.Send(bytes)..];
        }
    }

    /// <summary>Waits a moment for the peer to close the connection, and takes what it still sends: closed before it is read, it would undo the last answer.</summary>
    internal void AwaitEnd()
    {
        _socket.ReceiveTimeout = 1000;
        try
        {
            _ = _socket.Receive(stackalloc byte[PageServerMessage.MostBytes]);
        }
        catch (SocketException)
        {
            // It is gone, or it will be.
        }
    }

    /// <summary>Ends what the connection's thread waits for.</summary>
    internal void Shutdown()
    {
        try
        {
            _socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception gone) when (gone is SocketException or ObjectDisposedException)
        {
            // By itself.
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _socket.Dispose();
}
