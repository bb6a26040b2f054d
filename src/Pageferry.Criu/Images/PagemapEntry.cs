using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>A run of a process's pages.</summary>
/// <param name="Address">The first page's address in the process.</param>
/// <param name="PageCount">How many pages; at least 1.</param>
/// <param name="Flags">Where their content is.</param>
/// <param name="FirstPage">Of pages that are <see cref="PagemapFlags.Present"/>: which page of the pages image is the first of them.</param>
public readonly record struct PagemapEntry(ulong Address, ulong PageCount, PagemapFlags Flags, ulong FirstPage)
{
    /// <summary>The first address behind the run.</summary>
    public ulong End => Address + (PageCount * Page.Size);
}
