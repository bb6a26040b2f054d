namespace Pageferry.Memory;

/// <summary>
/// Tells which pages of a guest's memory were written, by whomever: the guest, the kernel for it, or this process.
/// </summary>
/// <remarks>
/// A page that is copied elsewhere is rearmed first and read then: a write in between, or later, is told by the next fetch. Writes before a page was rearmed
/// for the first time need not be told. One thread fetches; several may rearm at once, each its own pages, also while one fetches.
/// </remarks>
public interface IDirtyTracker : IDisposable
{
    /// <summary>Puts the pages written since they were last rearmed, and not fetched yet, into a set.</summary>
    /// <param name="dirty">The set; a bit per page of the memory.</param>
    /// <exception cref="Linux.LinuxException">The kernel refused.</exception>
    void Fetch(PageBitmap dirty);

    /// <summary>From now on a write to these pages is told by the next <see cref="Fetch"/>, however often they were written before.</summary>
    /// <param name="page">The first page; a multiple of <see cref="PageBitmap.PagesPerWord"/>.</param>
    /// <param name="count">How many; such a multiple, or all to the end of the memory.</param>
    /// <exception cref="Linux.LinuxException">The kernel refused.</exception>
    void Rearm(ulong page, ulong count);
}
