namespace Pageferry.Linux;

/// <summary>How pages are moved: the <c>UFFDIO_MOVE_MODE_</c> bits.</summary>
[Flags]
public enum UserfaultfdMoveFlags : ulong
{
    /// <summary>Wake who waits; a hole in the source is an error.</summary>
    None = 0,

    /// <summary><c>UFFDIO_MOVE_MODE_DONTWAKE</c>: leave the waiters waiting.</summary>
    DontWake = 1,

    /// <summary><c>UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES</c>: pass over holes in the source; the destination stays missing there.</summary>
    AllowSourceHoles = 2,
}
