namespace Pageferry.Memory;

/// <summary>A contiguous range of guest physical addresses that is RAM.</summary>
/// <param name="Gpa">The first guest physical address; a page multiple.</param>
/// <param name="Length">Bytes; a page multiple, not zero.</param>
public readonly record struct GuestRegion(ulong Gpa, ulong Length)
{
    /// <summary>The first guest physical address after the region.</summary>
    public ulong End => Gpa + Length;
}
