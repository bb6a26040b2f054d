namespace Pageferry.Memory;

/// <summary>What kernel object a guest's memory is made of.</summary>
public enum GuestBacking
{
    /// <summary>
    /// A memfd (shmem) mapped twice, so that the engine writes a page through the host view and places it with
    /// <c>UFFDIO_CONTINUE</c>: no copy.
    /// </summary>
    Memfd,

    /// <summary>Private anonymous memory: one mapping, no host view, pages are placed with <c>UFFDIO_COPY</c>.</summary>
    Anonymous,
}
