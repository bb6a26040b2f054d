using System.Runtime.InteropServices;

namespace Pageferry.Kvm;

/// <summary>What a vCPU was about to do when it stopped: <c>struct kvm_sync_regs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public record struct VcpuContext
{
    /// <summary>The general registers.</summary>
    public VcpuRegisters Registers;

    /// <summary>Segments, tables and control registers.</summary>
    public VcpuSystemRegisters SystemRegisters;

    /// <summary>What it has yet to deliver.</summary>
    public VcpuEvents Events;
}
