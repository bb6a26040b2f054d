namespace Pageferry.Linux;

/// <summary>What is done to the protection of pages: the <c>UFFDIO_WRITEPROTECT_MODE_</c> bits. The kernel refuses both at once.</summary>
[Flags]
public enum UserfaultfdWriteProtectFlags : ulong
{
    /// <summary>Let writes pass and wake who waits.</summary>
    None = 0,

    /// <summary><c>UFFDIO_WRITEPROTECT_MODE_WP</c>: protect. Nobody is woken.</summary>
    Protect = 1,

    /// <summary><c>UFFDIO_WRITEPROTECT_MODE_DONTWAKE</c>: let writes pass and leave the waiters waiting.</summary>
    DontWake = 2,
}
