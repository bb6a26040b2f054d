namespace Pageferry.Kvm;

/// <summary>A memory slot as KVM has it: the kernel fills a bitmap of its length, whatever we thought it was.</summary>
/// <param name="Number">The slot's number.</param>
/// <param name="Gpa">The first guest physical address.</param>
/// <param name="Length">Bytes.</param>
internal readonly record struct MemorySlot(uint Number, ulong Gpa, ulong Length)
{
    internal const ulong PageSize = 4096;
}
