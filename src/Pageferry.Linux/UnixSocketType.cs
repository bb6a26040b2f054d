namespace Pageferry.Linux;

/// <summary>How a Unix socket carries bytes: the <c>SOCK_</c> types.</summary>
public enum UnixSocketType
{
    /// <summary><c>SOCK_STREAM</c>: a stream without borders.</summary>
    Stream = Interop.SOCK_STREAM,

    /// <summary><c>SOCK_SEQPACKET</c>: what was sent at once is received at once.</summary>
    SequencedPackets = Interop.SOCK_SEQPACKET,
}
