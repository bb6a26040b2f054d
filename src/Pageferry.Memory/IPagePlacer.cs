using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>How a page gets into the guest view and its waiters go on: one way per kind of memory.</summary>
internal interface IPagePlacer
{
    /// <summary>Makes a run of pages whose content is whole visible and wakes who waits for them.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="content">The address of the content, for memory that has no host view.</param>
    /// <param name="done">The kernel's signed answer: bytes placed, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    UserfaultfdResult Place(ulong page, ulong count, ulong content, out long done);

    /// <summary>Makes a page that was placed before, and that the kernel unmapped, visible again as it is.</summary>
    /// <param name="page">The page.</param>
    /// <returns>The outcome.</returns>
    UserfaultfdResult PlaceAgain(ulong page);

    /// <summary>Makes a page without content a page of zeros and wakes who waits for it.</summary>
    /// <param name="page">The page.</param>
    /// <returns>The outcome.</returns>
    UserfaultfdResult PlaceZero(ulong page);
}
