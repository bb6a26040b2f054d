namespace Pageferry.Memory;

/// <summary>What is known of a page.</summary>
public enum PageState
{
    /// <summary>Armed: any access is a userfault. The content is elsewhere, or kept aside, and nobody has asked for it.</summary>
    Absent = 0,

    /// <summary>The guest waits for the page; it was asked for, once.</summary>
    Requested = 1,

    /// <summary>A lane has claimed the page and is receiving its content; nobody else may write it.</summary>
    Arriving = 2,

    /// <summary>The content is whole and the guest's own writes may be in it: it is never fetched again.</summary>
    Present = 3,

    /// <summary>
    /// The page has whatever is in guest memory, which is zeros unless it was disarmed: the source said so, or it was disarmed. It is placed when it is
    /// touched, and then present.
    /// </summary>
    Zero = 4,

    /// <summary>The page was removed, or disarmed, while its content was arriving: the content is dropped.</summary>
    ArrivingRemoved = 5,

    /// <summary>The page is being armed: who touches it waits, and then finds it absent.</summary>
    Arming = 6,

    /// <summary>
    /// The page was removed (madvise) and has whatever is in guest memory: zeros, or what the guest wrote since. It is placed whenever it is touched and
    /// never becomes present: the kernel tells a removal before it takes the page, and takes one with it that was placed in between.
    /// </summary>
    Removed = 7,
}
