namespace Pageferry.Linux;

/// <summary>What came of placing pages. These are expected on the fault path, so they are no exceptions.</summary>
public enum UserfaultfdResult
{
    /// <summary>All of it was done.</summary>
    Done,

    /// <summary>EEXIST: the first page is there already. Nobody was woken.</summary>
    AlreadyPresent,

    /// <summary>EAGAIN: a part was done (the count is above 0), or an event is unread (the count is -EAGAIN).</summary>
    Retry,

    /// <summary>ENOENT: the range is not registered for this, or not mapped any more; or the source of UFFDIO_MOVE has a hole.</summary>
    NotRegistered,

    /// <summary>EFAULT: the content can't be read, or is not in the page cache (UFFDIO_CONTINUE), or lies beyond the file's end.</summary>
    BadSource,

    /// <summary>ESRCH: the process whose memory it was is gone.</summary>
    ProcessGone,

    /// <summary>ENOMEM: no memory for the page.</summary>
    NoMemory,

    /// <summary>EBUSY: a source page of UFFDIO_MOVE is pinned or shared with another process; it has to be copied.</summary>
    Busy,

    /// <summary>EINVAL: the request makes no sense for this memory.</summary>
    Invalid,

    /// <summary>An errno that none of the above stands for; it is negated in the count.</summary>
    Other,
}
