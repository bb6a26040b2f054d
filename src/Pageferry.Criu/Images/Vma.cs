namespace Pageferry.Criu;

/// <summary>One mapping of a process.</summary>
/// <param name="Start">The first address.</param>
/// <param name="End">The first address behind it.</param>
/// <param name="Protection">As for <c>mmap</c>: <c>PROT_READ</c> 1, <c>PROT_WRITE</c> 2, <c>PROT_EXEC</c> 4.</param>
/// <param name="Flags">As for <c>mmap</c>: <c>MAP_SHARED</c> 1, <c>MAP_PRIVATE</c> 2, <c>MAP_ANONYMOUS</c> 0x20 and others.</param>
public readonly record struct Vma(ulong Start, ulong End, uint Protection, uint Flags);
