using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;

namespace Pageferry.Migration;

/// <summary>One TCP connection of a session: frames of a header and a payload, read and written by one thread at a time each.</summary>
/// <remarks>A frame's header is little-endian: type (2 bytes), flags (2 bytes, 0), payload length (4 bytes).</remarks>
internal sealed class PeerConnection : IDisposable
{
    internal const int HeaderBytes = 8;

    /// <summary>"PAGEFERY" in memory: the first bytes of every hello and welcome.</summary>
    private const ulong Magic = 0x5952_4546_4547_4150;

    /// <summary>Holds a page's whole frame, so that one receive gets it.</summary>
    private const int BufferBytes = 8 << 10;

    private const int HelloBytes = 32;
    private const int WelcomeBytes = 32;
    private const int MostErrorBytes = 1024;

    private readonly Socket _socket;
    private readonly byte[] _sendHeader = new byte[HeaderBytes];
    private readonly byte[] _receiveHeader = new byte[HeaderBytes];
    private readonly byte[] _buffer = new byte[BufferBytes];
    private int _buffered;
    private int _bufferTaken;

    internal PeerConnection(Socket socket)
    {
        _socket = socket;
        _socket.NoDelay = true;
    }

    internal Socket Socket => _socket;

    /// <summary>How long one receive or send may wait; zero for as long as it takes.</summary>
    internal TimeSpan Patience
    {
        set
        {
            _socket.ReceiveTimeout = (int)value.TotalMilliseconds;
            _socket.SendTimeout = (int)value.TotalMilliseconds;
        }
    }

    /// <summary>Sends a frame.</summary>
    internal void Send(MessageType type, ReadOnlySpan<byte> payload)
    {
        WriteHeader(_sendHeader, type, payload.Length);
        SendAll(_sendHeader);
        SendAll(payload);
    }

    /// <summary>Writes a frame's header.</summary>
    internal static void WriteHeader(Span<byte> header, MessageType type, int payloadBytes)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(header, (ushort)type);
        BinaryPrimitives.WriteUInt16LittleEndian(header[2..], 0);
        BinaryPrimitives.WriteInt32LittleEndian(header[4..], payloadBytes);
    }

    /// <summary>Sends bytes that are framed already.</summary>
    internal void SendAll(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            bytes = bytes[_socket.Send(bytes)..];
        }
    }

    /// <summary>Receives exactly as many bytes as the buffer holds.</summary>
    /// <exception cref="EndOfStreamException">The peer closed the connection.</exception>
    internal void ReceiveAll(Span<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            if (_bufferTaken < _buffered)
            {
                int taken = Math.Min(bytes.Length, _buffered - _bufferTaken);
                _buffer.AsSpan(_bufferTaken, taken).CopyTo(bytes);
                _bufferTaken += taken;
                bytes = bytes[taken..];
            }
            else if (bytes.Length >= BufferBytes)
            {
                bytes = bytes[ReceiveSome(bytes)..];
            }
            else
            {
                _bufferTaken = 0;
                _buffered = 0;
                _buffered = ReceiveSome(_buffer);
            }
        }
    }

    /// <summary>Receives a frame's header. An error frame is received whole and thrown.</summary>
    /// <returns>What the frame carries, and how many bytes.</returns>
    /// <exception cref="ProtocolException">The peer parted with a reason, or the header makes no sense.</exception>
    internal (MessageType Type, int Bytes) ReceiveHeader()
    {
        ReceiveAll(_receiveHeader);
        var type = (MessageType)BinaryPrimitives.ReadUInt16LittleEndian(_receiveHeader);
        ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(_receiveHeader.AsSpan(2));
        uint bytes = BinaryPrimitives.ReadUInt32LittleEndian(_receiveHeader.AsSpan(4));
        if (flags != 0)
        {
            throw new ProtocolException($"The peer sent a {type} frame with the unknown flags 0x{flags:x}.");
        }

        if (type == MessageType.Error)
        {
            throw new ProtocolException($"The peer parted: {ReceiveError(bytes)}");
        }

        return bytes <= int.MaxValue ? (type, (int)bytes) : throw new ProtocolException($"The peer sent a {type} frame of {bytes} bytes.");
    }

    /// <summary>Receives a frame that has to be of a type.</summary>
    /// <param name="expected">The type.</param>
    /// <param name="mostBytes">The most bytes its payload may have.</param>
    /// <returns>The payload.</returns>
    internal byte[] Receive(MessageType expected, int mostBytes)
    {
        (MessageType type, int bytes) = ReceiveHeader();
        if (type != expected || bytes > mostBytes)
        {
            throw new ProtocolException($"The peer sent a frame {type} of {bytes} bytes where {expected} of up to {mostBytes} is due.");
        }

        var payload = new byte[bytes];
        ReceiveAll(payload);
        return payload;
    }

    /// <summary>The source's part of the handshake.</summary>
    /// <returns>The session.</returns>
    internal Guid Introduce(VersionRange versions, ConnectionRole role, Guid session)
    {
        Span<byte> hello = stackalloc byte[HelloBytes];
        hello.Clear();
        WritePrologue(hello, versions);
        hello[12] = (byte)role;
        _ = session.TryWriteBytes(hello[16..]);
        Send(MessageType.Hello, hello);

        ReadOnlySpan<byte> welcome = Receive(MessageType.Welcome, WelcomeBytes);
        VersionRange peer = ReadPrologue(welcome, WelcomeBytes);
        ushort chosen = BinaryPrimitives.ReadUInt16LittleEndian(welcome[12..]);
        return versions.Agree(peer) == chosen
            ? new Guid(welcome[16..])
            : throw new ProtocolException($"The peer speaks protocol version {peer} and chose {chosen}; this side speaks {versions}.");
    }

    /// <summary>The destination's part of the handshake, first half: who is there.</summary>
    /// <returns>What the connection is for, the session it names, and the version to speak.</returns>
    /// <exception cref="ProtocolException">It is no Pageferry, or of no version that is spoken here; the peer was told.</exception>
    internal (ConnectionRole Role, Guid Session, ushort Version) ReceiveHello(VersionRange versions)
    {
        ReadOnlySpan<byte> hello = Receive(MessageType.Hello, HelloBytes);
        VersionRange peer = ReadPrologue(hello, HelloBytes);
        var role = (ConnectionRole)hello[12];
        if (versions.Agree(peer) is not { } version)
        {
            throw new ProtocolException($"The source speaks protocol version {peer}, this destination {versions}: use builds that share one.");
        }

        return Enum.IsDefined(role) ? (role, new Guid(hello[16..]), version) : throw new ProtocolException($"The connection is for a role {(byte)role} that is unknown here.");
    }

    /// <summary>The destination's part of the handshake, second half: come in.</summary>
    internal void Welcome(VersionRange versions, ushort version, Guid session)
    {
        Span<byte> welcome = stackalloc byte[WelcomeBytes];
        welcome.Clear();
        WritePrologue(welcome, versions);
        BinaryPrimitives.WriteUInt16LittleEndian(welcome[12..], version);
        _ = session.TryWriteBytes(welcome[16..]);
        Send(MessageType.Welcome, welcome);
    }

    /// <summary>Tells the peer why this side parts, if it still listens.</summary>
    internal void TryPart(string reason)
    {
        byte[] text = Encoding.UTF8.GetBytes(reason);
        try
        {
            Patience = TimeSpan.FromSeconds(1);
            Send(MessageType.Error, text.AsSpan(0, Math.Min(text.Length, MostErrorBytes)));
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // It doesn't; there is nobody to tell.
        }
    }

    /// <summary>Ends a receive that another thread waits in.</summary>
    internal void Shutdown()
    {
        try
        {
            _socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // The peer was faster.
        }
    }

    public void Dispose() => _socket.Dispose();

    private static void WritePrologue(Span<byte> message, VersionRange versions)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(message, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(message[8..], versions.Lowest);
        BinaryPrimitives.WriteUInt16LittleEndian(message[10..], versions.Highest);
    }

    private static VersionRange ReadPrologue(ReadOnlySpan<byte> message, int bytes)
    {
        if (message.Length != bytes || BinaryPrimitives.ReadUInt64LittleEndian(message) != Magic)
        {
            throw new ProtocolException("The peer does not speak Pageferry's protocol.");
        }

        var versions = new VersionRange(BinaryPrimitives.ReadUInt16LittleEndian(message[8..]), BinaryPrimitives.ReadUInt16LittleEndian(message[10..]));
        return versions.Lowest <= versions.Highest ? versions : throw new ProtocolException($"The peer states the version range {versions}, which is empty.");
    }

    private int ReceiveSome(Span<byte> bytes)
    {
        int received = _socket.Receive(bytes);
        return received > 0 ? received : throw new EndOfStreamException("The peer closed the connection.");
    }

    private string ReceiveError(uint bytes)
    {
        var text = new byte[Math.Min(bytes, MostErrorBytes)];
        ReceiveAll(text);

        // Control characters of a peer don't reach a terminal.
        return string.Concat(Encoding.UTF8.GetString(text).Where(character => !char.IsControl(character)));
    }
}
