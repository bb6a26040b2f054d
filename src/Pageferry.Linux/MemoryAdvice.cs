namespace Pageferry.Linux;

/// <summary>What the kernel is asked to do with mapped memory: the <c>MADV_</c> values of madvise(2).</summary>
public enum MemoryAdvice
{
    /// <summary><c>MADV_DONTNEED</c>: unmap; anonymous content is lost, shared content stays in its file.</summary>
    DontNeed = 4,

    /// <summary><c>MADV_REMOVE</c>: punch a hole into the file behind the range.</summary>
    Remove = 9,

    /// <summary><c>MADV_DONTFORK</c>: a child does not get this range.</summary>
    DontFork = 10,

    /// <summary><c>MADV_HUGEPAGE</c>: transparent huge pages are welcome.</summary>
    HugePage = 14,

    /// <summary><c>MADV_NOHUGEPAGE</c>: small pages only.</summary>
    NoHugePage = 15,

    /// <summary><c>MADV_DONTDUMP</c>: keep the range out of core dumps.</summary>
    DontDump = 16,

    /// <summary><c>MADV_POPULATE_READ</c>: fault in for reading (Linux 5.14).</summary>
    PopulateRead = 22,

    /// <summary><c>MADV_POPULATE_WRITE</c>: fault in for writing (Linux 5.14).</summary>
    PopulateWrite = 23,

    /// <summary><c>MADV_COLLAPSE</c>: replace small pages by a huge one now (Linux 6.1).</summary>
    Collapse = 25,
}
