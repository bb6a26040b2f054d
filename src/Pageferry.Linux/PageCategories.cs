namespace Pageferry.Linux;

/// <summary>What the kernel knows of a page: the <c>PAGE_IS_</c> bits of PAGEMAP_SCAN.</summary>
[Flags]
public enum PageCategories : ulong
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary><c>PAGE_IS_WPALLOWED</c>: registered for asynchronous write protection.</summary>
    WriteProtectAllowed = 1 << 0,

    /// <summary><c>PAGE_IS_WRITTEN</c>: written since it was write-protected.</summary>
    Written = 1 << 1,

    /// <summary><c>PAGE_IS_FILE</c>: of a file.</summary>
    File = 1 << 2,

    /// <summary><c>PAGE_IS_PRESENT</c>: mapped.</summary>
    Present = 1 << 3,

    /// <summary><c>PAGE_IS_SWAPPED</c>: swapped out.</summary>
    Swapped = 1 << 4,

    /// <summary><c>PAGE_IS_PFNZERO</c>: the kernel's page of zeros.</summary>
    ZeroPage = 1 << 5,

    /// <summary><c>PAGE_IS_HUGE</c>: part of a huge page.</summary>
    Huge = 1 << 6,

    /// <summary><c>PAGE_IS_SOFT_DIRTY</c>.</summary>
    SoftDirty = 1 << 7,
}
