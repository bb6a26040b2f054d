using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>How a page gets into the guest view and out of it again. Never called twice at a time, but for <see cref="Hide"/> and <see cref="Wake"/>.</summary>
internal interface IPagePlacer : IDisposable
{
    /// <summary>Where faults and removals are told; null where nothing is.</summary>
    Userfaultfd? Userfaultfd { get; }

    /// <summary>Places a run of small pages, whatever content they were hidden with, and wakes who waits for them.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="content">Where their content is.</param>
    /// <param name="offset">Where it begins there, in bytes.</param>
    /// <param name="done">Bytes placed, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    UserfaultfdResult Place(ulong page, ulong count, MappedRegion content, ulong offset, out long done);

    /// <summary>Makes what is faulted in at once, a page or a huge page, visible as it is.</summary>
    /// <param name="page">Its first page.</param>
    /// <returns>The outcome; <see cref="UserfaultfdResult.BadSource"/> when it has no content.</returns>
    UserfaultfdResult PlaceAgain(ulong page);

    /// <summary>Makes what is faulted in at once, and has no content, visible as zeros.</summary>
    /// <param name="page">Its first page.</param>
    /// <returns>The outcome.</returns>
    UserfaultfdResult PlaceZero(ulong page);

    /// <summary>Lets who waits for pages touch them again.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    void Wake(ulong page, ulong count);

    /// <summary>Makes every later access to pages a userfault. May wait until a removal was read.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="content">What becomes of their content.</param>
    /// <exception cref="LinuxException">The kernel refused; the pages may be visible or not.</exception>
    void Hide(ulong page, ulong count, ArmedContent content);

    /// <summary>Drops what was kept aside of hidden pages: they were removed, or have other content now.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    void Forget(ulong page, ulong count);

    /// <summary>Makes all memory accessible: no access is a userfault any more.</summary>
    void Release();
}
