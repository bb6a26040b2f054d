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
}
