namespace Pageferry.Memory;

/// <summary>What kernel object a guest's memory is made of.</summary>
public enum GuestBacking
{
    /// <summary>A memfd (shmem) mapped twice: the host view reads and writes what the guest sees, and never faults.</summary>
    Memfd,

    /// <summary>Private anonymous memory: one mapping and no host view.</summary>
    Anonymous,
}
