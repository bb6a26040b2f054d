namespace Pageferry.Linux;

/// <summary>What a page of a process's address space is: the <c>PAGE_IS_</c> bits of PAGEMAP_SCAN.</summary>
[Flags]
public enum PageCategories : ulong
{
    /// <summary>None of those below: nothing is mapped there.</summary>
    None = 0,

    /// <summary><c>PAGE_IS_WPALLOWED</c>: registered with a userfaultfd that protects without a message (WP_ASYNC).</summary>
    WriteProtectAllowed = 1,

    /// <summary><c>PAGE_IS_WRITTEN</c>: not write-protected by a userfaultfd, so written since it was.</summary>
    Written = 2,

    /// <summary><c>PAGE_IS_FILE</c>: of a file or of shared memory.</summary>
    File = 4,

    /// <summary><c>PAGE_IS_PRESENT</c>: in memory and mapped.</summary>
    Present = 8,

    /// <summary><c>PAGE_IS_SWAPPED</c>: in swap, or a marker such as that of a poisoned page.</summary>
    Swapped = 16,

    /// <summary><c>PAGE_IS_PFNZERO</c>: the kernel's page of zeros.</summary>
    ZeroPage = 32,

    /// <summary><c>PAGE_IS_HUGE</c>: part of a huge page.</summary>
    Huge = 64,

    /// <summary><c>PAGE_IS_SOFT_DIRTY</c>: written since the process's soft-dirty bits were cleared.</summary>
    SoftDirty = 128,

    /// <summary><c>PAGE_IS_GUARD</c>: a guard region (Linux 6.15).</summary>
    Guard = 256,
}
