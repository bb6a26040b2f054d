using System.Net.Security;
using System.Net.Sockets;

namespace Pageferry.Migration;

/// <summary>A connection's bytes under TLS. One thread may send while another receives.</summary>
/// <remarks>
/// What is sent and received goes through buffers of this object: <see cref="SslStream"/> takes managed arrays, and guest memory never gets
/// near it. A failure of TLS is told as the end of the connection that it is.
/// </remarks>
internal sealed class TlsChannel : IDisposable
{
    /// <summary>The first byte of the first record that a TLS client sends: a handshake.</summary>
    internal const byte HandshakeRecord = 0x16;

    /// <summary>What one TLS record carries at most.</summary>
    private const int RecordBytes = 16 << 10;

    private readonly SslStream _stream;
    private readonly byte[] _sending = new byte[RecordBytes];

    private TlsChannel(Stream socket) => _stream = new SslStream(socket, leaveInnerStreamOpen: true);

    /// <summary>Begins TLS as the source.</summary>
    /// <param name="socket">The connection.</param>
    /// <param name="security">Who this side is and whom it trusts.</param>
    /// <param name="host">The name or address that was connected to.</param>
    /// <param name="refusal">Why the destination's certificate is refused: it is to be told, and given nothing else; null if it is good.</param>
    /// <returns>The channel. The destination may refuse this side's certificate yet: then it says so in its first frame.</returns>
    /// <exception cref="ProtocolException">There is no TLS with this peer.</exception>
    internal static TlsChannel Connect(SocketStream socket, MigrationSecurity security, string host, out string? refusal)
    {
        string? refused = null;
        var channel = new TlsChannel(socket);
        channel.Begin(
            "There is no TLS with this destination; was it started with --tls-cert, --tls-key and --tls-ca?",
            stream => stream.AuthenticateAsClient(security.ForSource(host, why => refused = why)));
        refusal = refused;
        return channel;
    }

    /// <summary>Begins TLS as the destination.</summary>
    /// <param name="socket">The connection.</param>
    /// <param name="security">Who this side is and whom it trusts.</param>
    /// <param name="refusal">Why the source's certificate is refused: it is to be told, and given nothing else; null if it is good.</param>
    /// <returns>The channel.</returns>
    /// <exception cref="ProtocolException">There is no TLS with this peer.</exception>
    internal static TlsChannel Accept(SocketStream socket, MigrationSecurity security, out string? refusal)
    {
        string? refused = null;
        var channel = new TlsChannel(socket);
        channel.Begin("There is no TLS with this source.", stream => stream.AuthenticateAsServer(security.ForDestination(why => refused = why)));
        refusal = refused;
        return channel;
    }

    /// <summary>Sends bytes.</summary>
    internal void Send(ReadOnlySpan<byte> bytes)
    {
        try
        {
            while (!bytes.IsEmpty)
            {
                int count = Math.Min(bytes.Length, RecordBytes);
                bytes[..count].CopyTo(_sending);
                _stream.Write(_sending, 0, count);
                bytes = bytes[count..];
            }
        }
        catch (Exception failure) when (failure is IOException or InvalidOperationException and not ObjectDisposedException)
        {
            Rethrow(failure);
            throw new SocketException((int)SocketError.ConnectionAborted, Innermost(failure));
        }
    }

    /// <summary>Receives some bytes.</summary>
    /// <returns>How many; 0 when the connection has ended. An end that TLS did not announce is one too: no message ends by it.</returns>
    internal int Receive(byte[] buffer)
    {
        try
        {
            return _stream.Read(buffer, 0, buffer.Length);
        }
        catch (Exception failure) when (failure is IOException or InvalidOperationException and not ObjectDisposedException)
        {
            Rethrow(failure);
            throw new ProtocolException($"TLS with the peer failed: {Innermost(failure)}");
        }
    }

    public void Dispose() => _stream.Dispose();

    private void Begin(string otherwise, Action<SslStream> authenticate)
    {
        try
        {
            authenticate(_stream);
        }
        catch (Exception failure)
        {
            Dispose();
            Rethrow(failure);
            throw new ProtocolException($"{otherwise} {Innermost(failure)}");
        }
    }

    /// <summary>Throws what the socket itself threw, if it did.</summary>
    private static void Rethrow(Exception failure)
    {
        for (Exception? cause = failure; cause is not null; cause = cause.InnerException)
        {
            if (cause is SocketException or ObjectDisposedException)
            {
                System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(cause);
            }
        }
    }

    private static string Innermost(Exception failure) => failure.InnerException is { } inner ? Innermost(inner) : failure.Message;
}
