using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>The addresses that a process may have memory at.</summary>
internal static class UserSpace
{
    /// <summary>With five levels of page tables; the last page is the kernel's.</summary>
    internal const ulong End = (1UL << 56) - Page.Size;

    internal static bool Contains(ulong address, ulong pages) => address < End && pages <= (End - address) / Page.Size;
}
