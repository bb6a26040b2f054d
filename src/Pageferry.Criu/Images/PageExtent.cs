using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>A run of a process's pages whose content lies in one piece.</summary>
/// <param name="Address">The first page's address in the process.</param>
/// <param name="PageCount">How many pages; at least 1.</param>
/// <param name="File">Where the content is.</param>
/// <param name="FirstPage">Which page of the file is the first of them.</param>
public readonly record struct PageExtent(ulong Address, ulong PageCount, PagesFile File, ulong FirstPage)
{
    /// <summary>The first address behind the run.</summary>
    public ulong End => Address + (PageCount * Page.Size);
}
