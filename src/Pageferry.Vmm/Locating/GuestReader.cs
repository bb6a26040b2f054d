namespace Pageferry.Vmm;

/// <summary>Copies guest physical memory as the host sees it.</summary>
/// <param name="gpa">The first guest physical address.</param>
/// <param name="destination">Where to copy to. The range lies within one page.</param>
/// <returns>False where the page is armed, missing or outside memory: what it holds is not known yet.</returns>
internal delegate bool GuestReader(ulong gpa, Span<byte> destination);
