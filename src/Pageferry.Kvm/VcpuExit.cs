using System.Buffers.Binary;

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
    VcpuExitKind Kind, uint Reason, ulong Address = 0, int Size = 0, int Count = 0, ulong Value = 0, ulong Length = 0)
{
    /// <summary>Reads the exit that the kernel left in a vCPU's shared memory (<c>struct kvm_run</c>).</summary>
    /// <param name="run">Its first <see cref="Interop.RunExitBytes"/> bytes.</param>
    /// <returns>The exit; of a reason that is unknown here, its number.</returns>
    internal static VcpuExit Read(ReadOnlySpan<byte> run)
    {
        uint reason = BinaryPrimitives.ReadUInt32LittleEndian(run[Interop.RunExitReason..]);
        return reason switch
        {
            Interop.KVM_EXIT_IO => new VcpuExit(
                run[Interop.RunIoDirection] == Interop.KVM_EXIT_IO_OUT ? VcpuExitKind.PortWrite : VcpuExitKind.PortRead,
                reason,
                BinaryPrimitives.ReadUInt16LittleEndian(run[Interop.RunIoPort..]),
                run[Interop.RunIoSize],
                BinaryPrimitives.ReadInt32LittleEndian(run[Interop.RunIoCount..])),
            Interop.KVM_EXIT_MMIO => new VcpuExit(
                run[Interop.RunMmioIsWrite] != 0 ? VcpuExitKind.MmioWrite : VcpuExitKind.MmioRead,
                reason,
                BinaryPrimitives.ReadUInt64LittleEndian(run[Interop.RunMmioAddress..]),
                BinaryPrimitives.ReadInt32LittleEndian(run[Interop.RunMmioLength..]),
                1),
            Interop.KVM_EXIT_HLT => new VcpuExit(VcpuExitKind.Halt, reason),
            Interop.KVM_EXIT_SHUTDOWN => new VcpuExit(VcpuExitKind.Shutdown, reason),
            Interop.KVM_EXIT_FAIL_ENTRY => new VcpuExit(
                VcpuExitKind.FailEntry, reason, Value: BinaryPrimitives.ReadUInt64LittleEndian(run[Interop.RunFailEntryReason..])),
            Interop.KVM_EXIT_INTERNAL_ERROR => new VcpuExit(
                VcpuExitKind.InternalError, reason, Value: BinaryPrimitives.ReadUInt32LittleEndian(run[Interop.RunInternalSuberror..])),
            Interop.KVM_EXIT_SYSTEM_EVENT => new VcpuExit(
                VcpuExitKind.SystemEvent, reason, Value: BinaryPrimitives.ReadUInt32LittleEndian(run[Interop.RunSystemEventType..])),
            Interop.KVM_EXIT_DIRTY_RING_FULL => new VcpuExit(VcpuExitKind.DirtyRingFull, reason),
            Interop.KVM_EXIT_MEMORY_FAULT => new VcpuExit(
                VcpuExitKind.MemoryFault,
                reason,
                BinaryPrimitives.ReadUInt64LittleEndian(run[Interop.RunMemoryFaultAddress..]),
                Value: BinaryPrimitives.ReadUInt64LittleEndian(run[Interop.RunMemoryFaultFlags..]),
                Length: BinaryPrimitives.ReadUInt64LittleEndian(run[Interop.RunMemoryFaultSize..])),
            _ => new VcpuExit(VcpuExitKind.Unknown, reason),
        };
    }
}
