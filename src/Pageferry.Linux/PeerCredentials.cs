namespace Pageferry.Linux;

/// <summary>Who is at the other end of a Unix socket, as the kernel noted it when it connected: <c>struct ucred</c>.</summary>
/// <param name="ProcessId">The process; it may have ended since.</param>
/// <param name="UserId">Its effective user id.</param>
/// <param name="GroupId">Its effective group id.</param>
public readonly record struct PeerCredentials(int ProcessId, uint UserId, uint GroupId);
