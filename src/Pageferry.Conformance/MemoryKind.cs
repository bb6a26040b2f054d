namespace Pageferry.Conformance;

/// <summary>The memory that a case runs on.</summary>
public enum MemoryKind
{
    /// <summary>Private anonymous memory, 4 KiB pages.</summary>
    Anonymous,

    /// <summary>Shared memory (memfd), 4 KiB pages.</summary>
    Shmem,

    /// <summary>Shared memory of 2 MiB pages (memfd, <c>MFD_HUGETLB</c>), which have to be reserved.</summary>
    Hugetlb,

    /// <summary>A guest_memfd of KVM's that this process may map (Linux 6.18).</summary>
    GuestMemfd,

    /// <summary>A memfd of 4 KiB pages, mapped privately: what is written is the mapping's own.</summary>
    ShmemPrivate,

    /// <summary>A memfd of 2 MiB pages, mapped privately.</summary>
    HugetlbPrivate,
}
