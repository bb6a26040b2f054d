using System.Net.Sockets;

namespace Pageferry.Migration;

/// <summary>A connection's socket, with deadlines: what is sent and received on it directly, and what TLS runs over.</summary>
internal sealed class SocketStream(Socket socket) : Stream
{
    private TimeSpan _patience;
    private long _deadline;

    /// <inheritdoc/>
    public override bool CanRead => true;

    /// <inheritdoc/>
    public override bool CanWrite => true;

    /// <inheritdoc/>
    public override bool CanSeek => false;

    /// <inheritdoc/>
    public override long Length => throw new NotSupportedException();

    /// <inheritdoc/>
    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>How long one receive or send may wait from now on; zero for as long as it takes. Ends a deadline.</summary>
    internal TimeSpan Patience
    {
        get => _patience;
        set
        {
            _patience = value;
            _deadline = 0;
            socket.ReceiveTimeout = (int)value.TotalMilliseconds;
            socket.SendTimeout = (int)value.TotalMilliseconds;
        }
    }

    /// <summary>How long one send may wait from now on, where that differs from <see cref="Patience"/>.</summary>
    internal TimeSpan SendPatience
    {
        set => socket.SendTimeout = (int)value.TotalMilliseconds;
    }

    /// <summary>How long all that follows may take together, however little comes at a time.</summary>
    internal TimeSpan Deadline
    {
        set => _deadline = Environment.TickCount64 + (long)value.TotalMilliseconds;
    }

    /// <summary>The first byte that the peer sends, which stays to be received.</summary>
    /// <exception cref="EndOfStreamException">The peer closed the connection.</exception>
    internal byte Peek()
    {
        byte first = 0;
        HoldDeadline();
        return socket.Receive(new Span<byte>(ref first), SocketFlags.Peek) > 0 ? first : throw new EndOfStreamException("The peer closed the connection.");
    }

    /// <inheritdoc/>
    public override int Read(Span<byte> buffer)
    {
        HoldDeadline();
        return socket.Receive(buffer);
    }

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<byte> buffer)
    {
        while (!buffer.IsEmpty)
        {
            HoldDeadline();
            buffer = buffer[socket.Send(buffer)..];
        }
    }

    /// <inheritdoc/>
    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    /// <inheritdoc/>
    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

    /// <inheritdoc/>
    public override void Flush()
    {
        // The socket holds nothing back.
    }

    /// <inheritdoc/>
    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void SetLength(long value) => throw new NotSupportedException();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        socket.Dispose();
        base.Dispose(disposing);
    }

    private void HoldDeadline()
    {
        if (_deadline == 0)
        {
            return;
        }

        long left = _deadline - Environment.TickCount64;
        if (left <= 0)
        {
            throw new SocketException((int)SocketError.TimedOut);
        }

        socket.ReceiveTimeout = (int)left;
        socket.SendTimeout = (int)left;
    }
}
