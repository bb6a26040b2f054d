namespace Pageferry.Linux;

/// <summary>Who was at a Unix socket's other end when it connected or began to listen: <c>struct ucred</c>. The kernel vouches for it.</summary>
/// <param name="ProcessId">The process; 0 where this process can't see it.</param>
/// <param name="UserId">Its effective user.</param>
/// <param name="GroupId">Its effective group.</param>
public readonly record struct UnixPeer(int ProcessId, uint UserId, uint GroupId)
{
    /// <summary>This process, as its peers are told.</summary>
    /// <returns>The process, its effective user and group.</returns>
    /// <exception cref="LinuxException">The process has too many open files (EMFILE).</exception>
    public static UnixPeer OfThisProcess()
    {
        (UnixSocket one, UnixSocket other) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (one)
        using (other)
        {
            return one.GetPeer();
        }
    }
}
