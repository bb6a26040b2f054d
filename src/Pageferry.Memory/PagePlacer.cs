using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>How a page gets into the guest view and its waiters go on.</summary>
/// <remarks>
/// Content that arrives is placed with <c>UFFDIO_COPY</c> on every kind of memory. Receiving it into shared memory through the host view and
/// mapping it with <c>UFFDIO_CONTINUE</c> saves the copy and costs more: the kernel clears each new page, takes a fault on it, and maps it
/// twice (docs/performance.md). A copy also shows a page whole or not at all.
/// </remarks>
internal sealed class PagePlacer(GuestMemory memory)
{
    private readonly Userfaultfd _userfaultfd = memory.Userfaultfd;

    /// <summary>Places a run of pages (<c>UFFDIO_COPY</c>) and wakes who waits for them.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="content">The address of their content.</param>
    /// <param name="done">The kernel's signed answer: bytes placed, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    internal UserfaultfdResult Place(ulong page, ulong count, ulong content, out long done) =>
        _userfaultfd.Copy(memory.GuestViewOfPage(page), content, count * Page.Size, UserfaultfdCopyFlags.None, out done);

    /// <summary>Makes a page that was placed before, and that the kernel unmapped, visible again as it is (<c>UFFDIO_CONTINUE</c>).</summary>
    /// <param name="page">The page.</param>
    /// <returns>
    /// The outcome. Private memory that has content never faults as missing, so there the fault was answered while its message was on the way.
    /// </returns>
    internal UserfaultfdResult PlaceAgain(ulong page) => memory.HasHostView
        ? _userfaultfd.Continue(memory.GuestViewOfPage(page), Page.Size, UserfaultfdCopyFlags.None, out _)
        : UserfaultfdResult.AlreadyPresent;

    /// <summary>Makes a page without content a page of zeros (<c>UFFDIO_ZEROPAGE</c>) and wakes who waits for it.</summary>
    /// <param name="page">The page.</param>
    /// <returns>The outcome.</returns>
    internal UserfaultfdResult PlaceZero(ulong page) =>
        _userfaultfd.ZeroPage(memory.GuestViewOfPage(page), Page.Size, UserfaultfdCopyFlags.None, out _);
}
