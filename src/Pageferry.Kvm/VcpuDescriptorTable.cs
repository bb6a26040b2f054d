using System.Runtime.InteropServices;

namespace Pageferry.Kvm;

/// <summary>Where a descriptor table lies: <c>struct kvm_dtable</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public record struct VcpuDescriptorTable
{
    /// <summary>The linear address.</summary>
    public ulong Base;

    /// <summary>Bytes less one.</summary>
    public ushort Limit;

    private readonly ushort _padding0;
    private readonly ushort _padding1;
    private readonly ushort _padding2;
}
