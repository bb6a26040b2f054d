using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;

namespace Pageferry.Migration;

/// <summary>One TCP connection of a session, plain or under TLS: frames of a header and a payload, read and written by one thread at a time each.</summary>
/// <remarks>A frame's header is little-endian: type (2 bytes), flags (2 bytes, 0), payload length (4 bytes).</remarks>
internal sealed class PeerConnection : IDisposable
{
    internal const int HeaderBytes = 8;

    /// <summary>Behind a payload that has a check.</summary>
    internal const int CheckBytes = 4;

    /// <summary>Holds a page's whole frame, so that one receive gets it.</summary>
    private const int BufferBytes = 8 << 10;

    private const int MostErrorBytes = 1024;

    /// <summary><c>TCP_CONGESTION</c>; its value is a name, and <c>reno</c> is in every kernel.</summary>
    private const int TcpCongestion = 13;

    private readonly Socket _socket;
    private readonly SocketStream _stream;
    private readonly Lock _sending = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly byte[] _sendHeader = new byte[HeaderBytes];
    private readonly byte[] _receiveHeader = new byte[HeaderBytes];
    private readonly byte[] _buffer = new byte[BufferBytes];
    private int _buffered;
    private int _bufferTaken;
    private TlsChannel? _tls;
    private bool _isSecuring;
    private int _hasSent;

    internal PeerConnection(Socket socket)
    {
        _socket = socket;
        _socket.NoDelay = true;
        _stream = new SocketStream(socket);
    }

    internal Socket Socket => _socket;

    /// <summary>Completes when this side has ended the connection.</summary>
    internal Task Ended => _ended.Task;

    /// <summary>The peer's address and port.</summary>
    internal string PeerName
    {
        get
        {
            try
            {
                return $"{_socket.RemoteEndPoint}";
            }
            catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
            {
                return "a peer that is gone";
            }
        }
    }

    /// <summary>How long one receive or send may wait; zero for as long as it takes.</summary>
    internal TimeSpan Patience
    {
        get => _stream.Patience;
        set => _stream.Patience = value;
    }

    /// <summary>How long one send may wait, where that differs from <see cref="Patience"/>, which is set before.</summary>
    internal TimeSpan SendPatience
    {
        set => _stream.SendPatience = value;
    }

    /// <summary>
    /// Has what is sent go at once, between two sides of one host: a congestion control that paces (BBR) spends a fifth of the source's time on timers there.
    /// </summary>
    internal void SkipPacing()
    {
        try
        {
            _socket.SetRawSocketOption((int)SocketOptionLevel.Tcp, TcpCongestion, "reno"u8);
        }
        catch (SocketException)
        {
            // Not allowed here: it goes as this host has it.
        }
    }

    /// <summary>How long all that follows may take together, until <see cref="Patience"/> is set.</summary>
    internal TimeSpan Deadline
    {
        set => _stream.Deadline = value;
    }

    /// <summary>The first byte that the peer sends, before anything is received: a TLS record begins with another one than a hello.</summary>
    internal byte Peek() => _stream.Peek();

    /// <summary>Goes on under TLS, as the source.</summary>
    /// <param name="security">Who this side is and whom it trusts.</param>
    /// <param name="host">The name or address that was connected to.</param>
    /// <exception cref="ProtocolException">There is no TLS with this peer, or its certificate is refused, and <see cref="TryPart"/> can tell it.</exception>
    internal void SecureAsSource(MigrationSecurity security, string host)
    {
        _isSecuring = true;
        _tls = TlsChannel.Connect(_stream, security, host, out string? refusal);
        if (refusal is not null)
        {
            throw new ProtocolException($"The source refuses the destination: {refusal}.");
        }
    }

    /// <summary>Goes on under TLS, as the destination.</summary>
    /// <param name="security">Who this side is and whom it trusts.</param>
    /// <exception cref="ProtocolException">There is no TLS with this peer, or its certificate is refused, and <see cref="TryPart"/> can tell it.</exception>
    internal void SecureAsDestination(MigrationSecurity security)
    {
        _isSecuring = true;
        _tls = TlsChannel.Accept(_stream, security, out string? refusal);
        if (refusal is not null)
        {
            throw new ProtocolException($"The destination refuses the source: {refusal}.");
        }
    }

    /// <summary>Sends a frame.</summary>
    internal void Send(MessageType type, ReadOnlySpan<byte> payload)
    {
        lock (_sending)
        {
            if (!HasCheck(type) || payload.IsEmpty)
            {
                WriteHeader(_sendHeader, type, payload.Length);
                SendFrame(_sendHeader, payload);
                return;
            }

            Span<byte> check = stackalloc byte[CheckBytes];
            WriteCheck(check, payload);
            WriteHeader(_sendHeader, type, payload.Length + CheckBytes);
            SendFrame(_sendHeader, payload);
            SendFrame(check);
        }
    }

    /// <summary>Lets the peer know that this side is there, if it has heard nothing since this was called last and nobody is sending.</summary>
    internal void KeepAlive()
    {
        if (Interlocked.Exchange(ref _hasSent, 0) != 0 || !_sending.TryEnter())
        {
            return;
        }

        try
        {
            // What is queued already tells as much.
            if (_socket.Poll(0, SelectMode.SelectWrite))
            {
                Send(MessageType.Alive, []);
            }
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException or IOException)
        {
            // Whoever uses the connection meets that too.
        }
        finally
        {
            _sending.Exit();
        }
    }

    /// <summary>Writes a frame's header.</summary>
    internal static void WriteHeader(Span<byte> header, MessageType type, int payloadBytes)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(header, (ushort)type);
        BinaryPrimitives.WriteUInt16LittleEndian(header[2..], 0);
        BinaryPrimitives.WriteInt32LittleEndian(header[4..], payloadBytes);
    }

    /// <summary>Sends a frame whose header is written already.</summary>
    /// <param name="frame">The frame, or its beginning.</param>
    /// <param name="rest">The rest of it.</param>
    internal void SendFrame(ReadOnlySpan<byte> frame, ReadOnlySpan<byte> rest = default)
    {
        lock (_sending)
        {
            SendAll(frame);
            SendAll(rest);
            Volatile.Write(ref _hasSent, 1);
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
            else if (bytes.Length >= BufferBytes && _tls is null)
            {
                bytes = bytes[ReceiveSome(bytes)..];
            }
            else
            {
                _bufferTaken = 0;
                _buffered = 0;
                _buffered = _tls is null ? ReceiveSome(_buffer) : ReceiveSomeSecured();
            }
        }
    }

    /// <summary>Receives a frame's header. An error frame is received whole and thrown.</summary>
    /// <returns>What the frame carries, and how many bytes, without their check.</returns>
    /// <exception cref="ProtocolException">The peer parted with a reason, or the header makes no sense.</exception>
    internal (MessageType Type, int Bytes) ReceiveHeader() => ReceiveHeader(isGreeting: false);

    private (MessageType Type, int Bytes) ReceiveHeader(bool isGreeting)
    {
        MessageType type;
        uint bytes;
        do
        {
            ReceiveAll(_receiveHeader);
            type = (MessageType)BinaryPrimitives.ReadUInt16LittleEndian(_receiveHeader);
            ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(_receiveHeader.AsSpan(2));
            bytes = BinaryPrimitives.ReadUInt32LittleEndian(_receiveHeader.AsSpan(4));
            if (isGreeting && (flags != 0 || type is not (MessageType.Hello or MessageType.Welcome or MessageType.Error)))
            {
                throw HandshakePrologue.NotSpoken();
            }

            if (flags != 0)
            {
                throw new ProtocolException($"The peer sent a {type} frame with the unknown flags 0x{flags:x}.");
            }
        }
        while (type == MessageType.Alive && bytes == 0);

        if (type == MessageType.Error)
        {
            throw new ProtocolException($"The peer parted: {ReceiveError(bytes)}") { IsParting = true };
        }

        if (bytes > int.MaxValue || (HasCheck(type) && bytes is > 0 and <= CheckBytes))
        {
            throw new ProtocolException($"The peer sent a {type} frame of {bytes} bytes.");
        }

        return (type, HasCheck(type) && bytes > 0 ? (int)bytes - CheckBytes : (int)bytes);
    }

    /// <summary>Receives the payload of a frame whose header was received, and holds it to its check.</summary>
    /// <param name="type">What the frame carries.</param>
    /// <param name="payload">Of the size that the header told.</param>
    /// <exception cref="ProtocolException">The frame was damaged.</exception>
    internal void ReceivePayload(MessageType type, Span<byte> payload)
    {
        ReceiveAll(payload);
        if (HasCheck(type) && !payload.IsEmpty)
        {
            Span<byte> check = stackalloc byte[CheckBytes];
            ReceiveAll(check);
            FrameCheck.Hold(payload, BinaryPrimitives.ReadUInt32LittleEndian(check), type);
        }
    }

    /// <summary>Writes a check behind a payload.</summary>
    internal static void WriteCheck(Span<byte> check, ReadOnlySpan<byte> payload) => BinaryPrimitives.WriteUInt32LittleEndian(check, FrameCheck.Of(payload));

    /// <summary>Whether a payload of this type ends with a check that the connection sees to: those of pages have one of their own, and a handshake is the same in every version.</summary>
    private static bool HasCheck(MessageType type) => type >= MessageType.Layout && type is not (MessageType.Pages or MessageType.ZeroPages);

    /// <summary>Receives a frame that has to be of a type.</summary>
    /// <param name="expected">The type.</param>
    /// <param name="mostBytes">The most bytes its payload may have.</param>
    /// <returns>The payload.</returns>
    internal byte[] Receive(MessageType expected, int mostBytes)
    {
        (MessageType type, int bytes) = ReceiveHeader(isGreeting: expected is MessageType.Hello or MessageType.Welcome);
        if (type != expected || bytes > mostBytes)
        {
            throw new ProtocolException($"The peer sent a frame {type} of {bytes} bytes where {expected} of up to {mostBytes} is due.");
        }

        var payload = new byte[bytes];
        ReceivePayload(type, payload);
        return payload;
    }

    /// <summary>
    /// Receives a frame that is due by now: all of it within <see cref="Patience"/>, however little comes at a time, and however often the peer says that it is there.
    /// </summary>
    /// <inheritdoc cref="Receive"/>
    /// <exception cref="TimeoutException">It did not come in time.</exception>
    internal byte[] ReceiveAnswer(MessageType expected, int mostBytes)
    {
        TimeSpan longest = Patience;
        if (longest > TimeSpan.Zero)
        {
            Deadline = longest;
        }

        try
        {
            return Receive(expected, mostBytes);
        }
        catch (SocketException failure) when (failure.SocketErrorCode is SocketError.TimedOut or SocketError.WouldBlock)
        {
            throw Late($"its {expected}", longest);
        }
        finally
        {
            EndDeadline(longest);
        }
    }

    /// <summary>Sends a frame of any size, which the peer has to take within a time.</summary>
    /// <exception cref="TimeoutException">It did not.</exception>
    internal void SendWithin(TimeSpan longest, MessageType type, ReadOnlySpan<byte> payload)
    {
        TimeSpan patience = Patience;
        Deadline = longest;
        try
        {
            Send(type, payload);
        }
        catch (SocketException failure) when (failure.SocketErrorCode is SocketError.TimedOut or SocketError.WouldBlock)
        {
            throw Late($"the sending of {type}", longest);
        }
        finally
        {
            EndDeadline(patience);
        }
    }

    /// <summary>What a deadline that has passed is told as.</summary>
    /// <param name="what">What was waited for.</param>
    /// <param name="longest">For how long.</param>
    internal static TimeoutException Late(string what, TimeSpan longest) =>
        new($"The peer did not answer in time: {what} was waited for, for {longest.TotalSeconds:0.###} s.");

    /// <summary>The source's part of the handshake.</summary>
    /// <param name="hello">What the connection is for.</param>
    /// <returns>The destination's answer.</returns>
    internal Welcome Introduce(Hello hello)
    {
        Span<byte> payload = stackalloc byte[Hello.Bytes];
        hello.Write(payload);
        Send(MessageType.Hello, payload);
        return Welcome.Read(ReceiveAnswer(MessageType.Welcome, Welcome.Bytes), hello.Versions);
    }

    /// <summary>The destination's part of the handshake, first half: who is there.</summary>
    /// <param name="spoken">The versions that this side speaks.</param>
    /// <param name="version">The version to speak.</param>
    /// <returns>What the connection is for.</returns>
    /// <exception cref="ProtocolException">It is no Pageferry, or of no version that is spoken here.</exception>
    internal Hello ReceiveHello(VersionRange spoken, out ushort version) =>
        Hello.Read(Receive(MessageType.Hello, Hello.Bytes), spoken, out version);

    /// <summary>The destination's part of the handshake, second half: come in.</summary>
    internal void Admit(Welcome welcome)
    {
        Span<byte> payload = stackalloc byte[Welcome.Bytes];
        welcome.Write(payload);
        Send(MessageType.Welcome, payload);
    }

    /// <summary>Tells the peer why this side parts, if it still listens.</summary>
    internal void TryPart(string reason)
    {
        if (_isSecuring && _tls is null)
        {
            // In the middle of a TLS handshake there are no frames.
            return;
        }

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

    /// <summary>
    /// Ends the sending, and receives what the peer still sends and nobody wants: a connection closed with bytes unread is reset, and the
    /// peer may not get to see why this side parted.
    /// </summary>
    /// <param name="longest">How long at most.</param>
    /// <param name="mostBytes">How much at most.</param>
    internal void Linger(TimeSpan longest, int mostBytes)
    {
        try
        {
            _socket.Shutdown(SocketShutdown.Send);
            Deadline = longest;
            while (mostBytes > 0 && _stream.Read(_buffer) is > 0 and int received)
            {
                mostBytes -= received;
            }
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // Gone, or too slow.
        }
    }

    /// <summary>Ends what another thread waits in, and the connection.</summary>
    internal void Shutdown()
    {
        Shutdown(SocketShutdown.Both);
        _ = _ended.TrySetResult();
    }

    /// <summary>Ends a receive that another thread waits in; the peer can still be told why.</summary>
    internal void StopReceiving() => Shutdown(SocketShutdown.Receive);

    public void Dispose()
    {
        _ = _ended.TrySetResult();
        _socket.Dispose();
        _tls?.Dispose();
    }

    private void SendAll(ReadOnlySpan<byte> bytes)
    {
        if (_tls is not null)
        {
            _tls.Send(bytes);
            return;
        }

        _stream.Write(bytes);
    }

    private void Shutdown(SocketShutdown how)
    {
        try
        {
            _socket.Shutdown(how);
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // The peer was faster.
        }
    }

    private int ReceiveSome(Span<byte> bytes)
    {
        int received = _stream.Read(bytes);
        return received > 0 ? received : throw PeerClosed();
    }

    private int ReceiveSomeSecured()
    {
        int received = _tls!.Receive(_buffer);
        return received > 0 ? received : throw PeerClosed();
    }

    private void EndDeadline(TimeSpan patience)
    {
        try
        {
            Patience = patience;
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // Another thread closed it.
        }
    }

    private static EndOfStreamException PeerClosed() => new("The peer closed the connection.");

    private string ReceiveError(uint bytes)
    {
        var text = new byte[Math.Min(bytes, MostErrorBytes)];
        ReceiveAll(text);

        // Control characters of a peer don't reach a terminal.
        return string.Concat(Encoding.UTF8.GetString(text).Where(character => !char.IsControl(character)));
    }
}
