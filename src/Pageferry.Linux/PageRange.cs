using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>A run of pages of the same categories: <c>struct page_region</c>.</summary>
/// <param name="Start">The first address.</param>
/// <param name="End">The first address after the run.</param>
/// <param name="Categories">Those of the categories asked for that its pages have.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct PageRange(ulong Start, ulong End, PageCategories Categories);
