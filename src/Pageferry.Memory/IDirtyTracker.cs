namespace Pageferry.Memory;

/// <summary>
/// Tells which pages of a guest's memory were written, by whomever: the guest, the kernel for it, or this process; or removed by <see cref="GuestMemory.Remove"/>.
/// </summary>
/// <remarks>
/// A page that was told is rearmed first and read then: a write in between, or later, is told by the next fetch. Writes before a page was rearmed
/// for the first time need not be told. One thread fetches, while nobody rearms; several may rearm at once, each its own pages. What a guest's processor
/// writes while it runs may be told one fetch later; of a guest that is stopped everything is told.
/// Pages that a madvise elsewhere takes away are not told: who migrates memory removes it through the memory.
/// </remarks>
public interface IDirtyTracker : IDisposable
{
    /// <summary>Puts the pages written since they were last rearmed into a set. Those that were told before and not rearmed since may be told again.</summary>
    /// <param name="dirty">The set; a bit per page of the memory.</param>
    /// <exception cref="Linux.LinuxException">The kernel refused.</exception>
    void Fetch(PageBitmap dirty);

    /// <summary>From now on a write to these pages is told by the next <see cref="Fetch"/>, however often they were written before. What was not told yet still is.</summary>
    /// <param name="page">The first page; a multiple of <see cref="PageBitmap.PagesPerWord"/>.</param>
    /// <param name="count">How many; such a multiple, or all to the end of the memory.</param>
    /// <exception cref="Linux.LinuxException">The kernel refused.</exception>
    void Rearm(ulong page, ulong count);
}
