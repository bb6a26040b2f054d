namespace Pageferry.Memory;

/// <summary>What kernel object a guest's memory is made of.</summary>
public enum GuestBacking
{
    /// <summary>A memfd (shmem) mapped twice: the host view reads and writes what the guest sees, and never faults.</summary>
    Memfd,

    /// <summary>Private anonymous memory: one mapping and no host view.</summary>
    Anonymous,

    /// <summary>
    /// A memfd of reserved 2 MiB pages (hugetlb) mapped twice. A userfault is for a whole huge page: it is resolved when all its 512 pages are here.
    /// </summary>
    Memfd2M,

    /// <summary>
    /// A guest_memfd of KVM's that this process may map, mapped twice (Linux 6.18). Its accesses can be userfaults where the kernel has userfaultfd on
    /// guest_memfd, which no release up to Linux 7.2 has.
    /// </summary>
    GuestMemfd,
}
