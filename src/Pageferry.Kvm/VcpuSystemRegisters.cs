using System.Runtime.InteropServices;

namespace Pageferry.Kvm;

#pragma warning disable CS1591 // The names are the processor's.

/// <summary>Segments, tables and control registers: <c>struct kvm_sregs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public record struct VcpuSystemRegisters
{
    public VcpuSegment Cs;
    public VcpuSegment Ds;
    public VcpuSegment Es;
    public VcpuSegment Fs;
    public VcpuSegment Gs;
    public VcpuSegment Ss;
    public VcpuSegment Tr;
    public VcpuSegment Ldt;
    public VcpuDescriptorTable Gdt;
    public VcpuDescriptorTable Idt;
    public ulong Cr0;
    public ulong Cr2;
    public ulong Cr3;
    public ulong Cr4;
    public ulong Cr8;
    public ulong Efer;
    public ulong ApicBase;

    /// <summary>At most one bit: the external interrupt that is waiting to be injected.</summary>
    public ulong InterruptBitmap0;
    public ulong InterruptBitmap1;
    public ulong InterruptBitmap2;
    public ulong InterruptBitmap3;
}
