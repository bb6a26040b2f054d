namespace Pageferry.Linux;

/// <summary>Who was at a Unix socket's other end when it connected or began to listen: <c>struct ucred</c>. The kernel vouches for it.</summary>
/// <param name="ProcessId">The process; 0 where this process can't see it.</param>
/// <param name="UserId">Its effective user.</param>
/// <param name="GroupId">Its effective group.</param>
public readonly record struct UnixPeer(int ProcessId, uint UserId, uint GroupId);
