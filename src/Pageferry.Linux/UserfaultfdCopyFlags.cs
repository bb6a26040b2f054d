namespace Pageferry.Linux;

/// <summary>How a page is placed: the <c>MODE_</c> bits of UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE and UFFDIO_POISON.</summary>
[Flags]
public enum UserfaultfdCopyFlags : ulong
{
    /// <summary>Wake who waits; the page is writable.</summary>
    None = 0,

    /// <summary><c>MODE_DONTWAKE</c>: leave the waiters waiting.</summary>
    DontWake = 1,

    /// <summary><c>MODE_WP</c>: place the page write-protected; for UFFDIO_COPY and UFFDIO_CONTINUE only.</summary>
    WriteProtect = 2,
}
