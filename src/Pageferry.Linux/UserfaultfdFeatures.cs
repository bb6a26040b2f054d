namespace Pageferry.Linux;

/// <summary>What a userfaultfd can do: the <c>UFFD_FEATURE_</c> bits of UFFDIO_API. Bits unknown here are kept.</summary>
[Flags]
public enum UserfaultfdFeatures : ulong
{
    /// <summary>Missing faults of anonymous memory only.</summary>
    None = 0,

    /// <summary><c>UFFD_FEATURE_PAGEFAULT_FLAG_WP</c>: write-protect faults.</summary>
    PageFaultFlagWriteProtect = 1UL << 0,

    /// <summary><c>UFFD_FEATURE_EVENT_FORK</c>: needs CAP_SYS_PTRACE.</summary>
    EventFork = 1UL << 1,

    /// <summary><c>UFFD_FEATURE_EVENT_REMAP</c>.</summary>
    EventRemap = 1UL << 2,

    /// <summary><c>UFFD_FEATURE_EVENT_REMOVE</c>: madvise DONTNEED and REMOVE are told.</summary>
    EventRemove = 1UL << 3,

    /// <summary><c>UFFD_FEATURE_MISSING_HUGETLBFS</c>.</summary>
    MissingHugetlbfs = 1UL << 4,

    /// <summary><c>UFFD_FEATURE_MISSING_SHMEM</c>.</summary>
    MissingShmem = 1UL << 5,

    /// <summary><c>UFFD_FEATURE_EVENT_UNMAP</c>.</summary>
    EventUnmap = 1UL << 6,

    /// <summary><c>UFFD_FEATURE_SIGBUS</c>: a fault is SIGBUS (EFAULT in the kernel) and not a message.</summary>
    Sigbus = 1UL << 7,

    /// <summary><c>UFFD_FEATURE_THREAD_ID</c>: fault messages carry the thread's id.</summary>
    ThreadId = 1UL << 8,

    /// <summary><c>UFFD_FEATURE_MINOR_HUGETLBFS</c>.</summary>
    MinorHugetlbfs = 1UL << 9,

    /// <summary><c>UFFD_FEATURE_MINOR_SHMEM</c>.</summary>
    MinorShmem = 1UL << 10,

    /// <summary><c>UFFD_FEATURE_EXACT_ADDRESS</c>: fault addresses are not rounded down to the page.</summary>
    ExactAddress = 1UL << 11,

    /// <summary><c>UFFD_FEATURE_WP_HUGETLBFS_SHMEM</c>.</summary>
    WriteProtectHugetlbfsShmem = 1UL << 12,

    /// <summary><c>UFFD_FEATURE_WP_UNPOPULATED</c>.</summary>
    WriteProtectUnpopulated = 1UL << 13,

    /// <summary><c>UFFD_FEATURE_POISON</c>.</summary>
    Poison = 1UL << 14,

    /// <summary><c>UFFD_FEATURE_WP_ASYNC</c>.</summary>
    WriteProtectAsync = 1UL << 15,

    /// <summary><c>UFFD_FEATURE_MOVE</c>.</summary>
    Move = 1UL << 16,
}
