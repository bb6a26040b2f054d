using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>One connection of a move: messages of a header and a payload. One task may send while another receives.</summary>
/// <remarks>A header is little-endian: type (2 bytes), 0 (2 bytes), the payload's length (4 bytes).</remarks>
internal sealed class MoveConnection : IDisposable
{
    /// <summary>The version of the protocol.</summary>
    internal const int Version = 1;

    /// <summary>The most bytes of a payload.</summary>
    internal const int MostBytes = 1 << 20;

    private const int HeaderBytes = 8;

    /// <summary>How much is written at a time: whoever takes that much within the longest silence is there, however slow the link is.</summary>
    private const int PieceBytes = 16 << 10;

    /// <summary>How long a connection may take to be made, and a stranger to say what it wants.</summary>
    internal static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    /// <summary>How long a connection may be silent until it counts as lost; each side says every second that it is there.</summary>
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan s_between = TimeSpan.FromSeconds(1);

    private const int IPPROTO_TCP = 6;
    private const int TCP_USER_TIMEOUT = 18;

    /// <summary>What the source's side begins with.</summary>
    private static readonly byte[] s_prologue = "pagecriu"u8.ToArray();

    private readonly SemaphoreSlim _sending = new(1);
    private readonly byte[] _header = new byte[HeaderBytes];
    private readonly Timer _alive;

    private MoveConnection(Stream stream, string peer)
    {
        Stream = stream;
        Peer = peer;
        _alive = new Timer(_ => _ = SayAliveAsync());
    }

    /// <summary>The bytes beneath, for what is no message.</summary>
    internal Stream Stream { get; }

    /// <summary>Who is at the other end.</summary>
    internal string Peer { get; }

    /// <summary>Connects to a destination and says hello.</summary>
    /// <param name="to">Where it listens, as the user wrote it.</param>
    /// <param name="address">What was found under that name.</param>
    /// <param name="security">Who this side is and whom it trusts; null for a connection without TLS.</param>
    /// <param name="hello">What the connection is for.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    /// <returns>The connection, and the destination's answer.</returns>
    /// <exception cref="IOException">The destination refuses, or it is none.</exception>
    /// <exception cref="SocketException">Nobody answers there.</exception>
    internal static async Task<(MoveConnection Connection, MoveWelcome Welcome)> ConnectAsync(
        NetworkEndpoint to, IPEndPoint address, MigrationSecurity? security, MoveHello hello, CancellationToken cancellation)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(Patience);
        var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        Stream? stream = null;
        try
        {
            await socket.ConnectAsync(address, deadline.Token);
            BoundSilence(socket, hello);
            stream = new NetworkStream(socket, ownsSocket: true);
            (stream, string? refusal) = security is null ? (stream, null) : await security.SecureAsSourceAsync(stream, to.EndPoint is DnsEndPoint name ? name.Host : $"{address.Address}", deadline.Token);
            if (refusal is { } why)
            {
                throw new MoveException($"The source refuses the destination: {why}.");
            }

            var connection = new MoveConnection(stream, $"{to}");
            await stream.WriteAsync(s_prologue, deadline.Token);

            await connection.SendAsync(MoveMessage.Hello, hello, CliJson.Default.MoveHello, deadline.Token);
            MoveWelcome welcome = await connection.ReceiveAsync(MoveMessage.Welcome, CliJson.Default.MoveWelcome, deadline.Token);
            return (connection, welcome);
        }
        catch (Exception failure)
        {
            socket.Dispose();
            if (stream is not null)
            {
                await stream.DisposeAsync();
            }

            throw failure is OperationCanceledException && !cancellation.IsCancellationRequested
                ? new MoveException($"{to} did not answer within {Patience.TotalSeconds:F0} s. Is that a 'pageferry criu receive'?")
                : failure;
        }
    }

    /// <summary>Takes a connection that was made to this side, until its hello.</summary>
    /// <param name="socket">The connection, owned by this.</param>
    /// <param name="security">Who this side is and whom it trusts; null for a connection without TLS.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    /// <returns>The connection, and what it is for.</returns>
    /// <exception cref="IOException">It is nobody's who may come in.</exception>
    internal static async Task<(MoveConnection Connection, MoveHello Hello)> AcceptAsync(Socket socket, MigrationSecurity? security, CancellationToken cancellation)
    {
        Stream stream = new NetworkStream(socket, ownsSocket: true);
        MoveConnection? connection = null;
        try
        {
            socket.NoDelay = true;
            string peer = $"{socket.RemoteEndPoint}";
            (stream, string? refusal) = security is null ? (stream, null) : await security.SecureAsDestinationAsync(stream, cancellation);
            connection = new MoveConnection(stream, peer);
            var prologue = new byte[s_prologue.Length];
            await stream.ReadExactlyAsync(prologue, cancellation);
            if (!prologue.AsSpan().SequenceEqual(s_prologue))
            {
                const byte TlsHandshake = 0x16;
                throw new MoveException(prologue[0] == TlsHandshake
                    ? "The source speaks TLS, this destination doesn't: it was started without --tls-cert, --tls-key and --tls-ca."
                    : "This is a 'pageferry criu receive', which takes a 'pageferry criu move'.");
            }

            if (refusal is { } why)
            {
                throw new MoveException($"The destination refuses the source: {why}.");
            }

            MoveHello hello = await connection.ReceiveAsync(MoveMessage.Hello, CliJson.Default.MoveHello, cancellation);
            BoundSilence(socket, hello);
            return hello.Version == Version
                ? (connection, hello)
                : throw new MoveException($"The source speaks version {hello.Version} of the protocol, this destination version {Version}. Use the same pageferry on both sides.");
        }
        catch (Exception failure)
        {
            if (connection is not null && failure is MoveException)
            {
                await connection.TryPartAsync(failure.Message);
            }

            await stream.DisposeAsync();
            throw;
        }
    }

    /// <summary>From now on the peer hears each second that this side is there.</summary>
    internal void KeepAlive() => _ = _alive.Change(s_between, s_between);

    /// <summary>Sends a message.</summary>
    internal async Task SendAsync(MoveMessage type, ReadOnlyMemory<byte> payload, CancellationToken cancellation)
    {
        await _sending.WaitAsync(cancellation);
        try
        {
            using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            byte[] message = new byte[HeaderBytes + payload.Length];
            BinaryPrimitives.WriteUInt16LittleEndian(message, (ushort)type);
            BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(4), payload.Length);
            payload.Span.CopyTo(message.AsSpan(HeaderBytes));
            for (int at = 0; at < message.Length; at += PieceBytes)
            {
                deadline.CancelAfter(s_silence);
                await Stream.WriteAsync(message.AsMemory(at, Math.Min(PieceBytes, message.Length - at)), deadline.Token);
            }
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new MoveException($"{Peer} has taken nothing for {s_silence.TotalSeconds:F0} s.");
        }
        finally
        {
            _ = _sending.Release();
        }
    }

    /// <summary>Sends a message without a payload.</summary>
    internal Task SendAsync(MoveMessage type, CancellationToken cancellation) => SendAsync(type, ReadOnlyMemory<byte>.Empty, cancellation);

    /// <summary>Sends a message that says more.</summary>
    internal Task SendAsync<T>(MoveMessage type, T value, JsonTypeInfo<T> json, CancellationToken cancellation) =>
        SendAsync(type, JsonSerializer.SerializeToUtf8Bytes(value, json), cancellation);

    /// <summary>Receives the next message.</summary>
    /// <returns>What it is, and its payload.</returns>
    /// <exception cref="MoveException">The peer parted, was silent for too long, or sent what is no message.</exception>
    internal async Task<(MoveMessage Type, byte[] Payload)> ReceiveAsync(CancellationToken cancellation)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        try
        {
            while (true)
            {
                await ReadAsync(_header, deadline);
                var type = (MoveMessage)BinaryPrimitives.ReadUInt16LittleEndian(_header);
                uint length = BinaryPrimitives.ReadUInt32LittleEndian(_header.AsSpan(4));
                if (length > MostBytes || BinaryPrimitives.ReadUInt16LittleEndian(_header.AsSpan(2)) != 0 || !Enum.IsDefined(type))
                {
                    throw new MoveException($"{Peer} sent a message {(ushort)type} of {length} bytes, which the protocol does not have.");
                }

                var payload = new byte[length];
                await ReadAsync(payload, deadline);
                switch (type)
                {
                    case MoveMessage.Alive:
                        break;
                    case MoveMessage.Failed:
                        throw new MoveException(Printable(payload)) { IsParting = true };
                    default:
                        return (type, payload);
                }
            }
        }
        catch (EndOfStreamException)
        {
            throw new MoveException($"{Peer} closed the connection.");
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new MoveException($"{Peer} has been silent for {s_silence.TotalSeconds:F0} s.");
        }
    }

    /// <summary>Receives a message that has to be of a type.</summary>
    internal async Task ReceiveAsync(MoveMessage expected, CancellationToken cancellation)
    {
        (MoveMessage type, _) = await ReceiveAsync(cancellation);
        Hold(expected, type);
    }

    /// <summary>Receives a message that has to be of a type and says more.</summary>
    internal async Task<T> ReceiveAsync<T>(MoveMessage expected, JsonTypeInfo<T> json, CancellationToken cancellation)
    {
        (MoveMessage type, byte[] payload) = await ReceiveAsync(cancellation);
        Hold(expected, type);
        return Read(payload, json);
    }

    /// <summary>What a message says.</summary>
    /// <exception cref="MoveException">It makes no sense.</exception>
    internal T Read<T>(byte[] payload, JsonTypeInfo<T> json)
    {
        try
        {
            return JsonSerializer.Deserialize(payload, json) ?? throw new MoveException($"{Peer} sent nothing where {typeof(T).Name} is due.");
        }
        catch (JsonException failure)
        {
            throw new MoveException($"{Peer} sent no {typeof(T).Name}: {failure.Message}");
        }
    }

    /// <summary>Tells the peer why this side parts, if it still listens.</summary>
    internal Task TryPartAsync(string reason)
    {
        byte[] text = Encoding.UTF8.GetBytes(reason);
        return TryAsync(SendAsync(MoveMessage.Failed, text.AsMemory(0, Math.Min(text.Length, MostBytes)), CancellationToken.None));
    }

    /// <summary>Answers a hello, if the peer still listens.</summary>
    internal Task TryWelcomeAsync(MoveWelcome welcome) => TryAsync(SendAsync(MoveMessage.Welcome, welcome, CliJson.Default.MoveWelcome, CancellationToken.None));

    /// <inheritdoc/>
    public void Dispose()
    {
        _alive.Dispose();
        Stream.Dispose();
    }

    private static async Task TryAsync(Task sending)
    {
        try
        {
            await sending;
        }
        catch (Exception failure) when (failure is IOException or SocketException or ObjectDisposedException or InvalidOperationException)
        {
            // There is nobody to tell.
        }
    }

    private static void Hold(MoveMessage expected, MoveMessage type)
    {
        if (type != expected)
        {
            throw new MoveException($"The peer sent {type} where {expected} is due.");
        }
    }

    /// <summary>A peer's words for a terminal: lines are kept, other control characters are not.</summary>
    private static string Printable(byte[] text) => string.Concat(Encoding.UTF8.GetString(text).Where(character => character == '\n' || !char.IsControl(character)));

    /// <summary>
    /// Has the kernel end a connection for pages over which the peer's kernel says nothing any more. Nobody says there that he is there: who waits for a request over it would wait for ever, and make no other.
    /// </summary>
    /// <remarks>Not one for messages, which has its own bounds: the kernel also ends a connection whose peer takes little at a time.</remarks>
    private static void BoundSilence(Socket socket, MoveHello hello)
    {
        if (!hello.ForPages)
        {
            return;
        }

        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, (int)s_silence.TotalSeconds / 2);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, (int)s_between.TotalSeconds);

        // Of what was sent and is not taken, and of keepalive's questions.
        socket.SetRawSocketOption(IPPROTO_TCP, TCP_USER_TIMEOUT, MemoryMarshal.AsBytes<int>([(int)s_silence.TotalMilliseconds]));
    }

    /// <summary>Reads bytes to the last: as long as some come, the peer is there.</summary>
    private async Task ReadAsync(Memory<byte> bytes, CancellationTokenSource deadline)
    {
        while (!bytes.IsEmpty)
        {
            deadline.CancelAfter(s_silence);
            int read = await Stream.ReadAsync(bytes, deadline.Token);
            bytes = read > 0 ? bytes[read..] : throw new EndOfStreamException();
        }
    }

    private async Task SayAliveAsync()
    {
        try
        {
            await SendAsync(MoveMessage.Alive, CancellationToken.None);
        }
        catch (Exception failure) when (failure is IOException or SocketException or ObjectDisposedException or InvalidOperationException)
        {
            // Whoever uses the connection meets that too.
        }
    }
}
