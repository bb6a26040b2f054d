namespace Pageferry.Kvm;

/// <summary>Why a vCPU stopped running, and what with. A value: making one allocates nothing.</summary>
/// <param name="Kind">The reason, as far as this library knows it.</param>
/// <param name="Reason">The kernel's own number: <c>KVM_EXIT_</c>.</param>
/// <param name="Address">The port, the guest physical address, or 0.</param>
/// <param name="Size">The bytes of one access: 1, 2, 4 or 8.</param>
/// <param name="Count">How many accesses to a port: more than one for string instructions.</param>
/// <param name="Value">A number that belongs to the reason; see <see cref="VcpuExitKind"/>.</param>
/// <param name="Length">The bytes of a memory fault.</param>
public readonly record struct VcpuExit(
    VcpuExitKind Kind, uint Reason, ulong Address = 0, int Size = 0, int Count = 0, ulong Value = 0, ulong Length = 0);
