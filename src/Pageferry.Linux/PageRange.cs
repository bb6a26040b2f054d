using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>Neighbouring pages that are the same in what was asked about them: <c>struct page_region</c>.</summary>
/// <param name="Start">The first page's address.</param>
/// <param name="End">The address after the last page.</param>
/// <param name="Categories">What the pages are, of the categories that were asked for.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct PageRange(ulong Start, ulong End, PageCategories Categories);
