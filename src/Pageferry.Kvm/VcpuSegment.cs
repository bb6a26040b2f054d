using System.Runtime.InteropServices;

namespace Pageferry.Kvm;

#pragma warning disable CS1591 // The names are the processor's.

/// <summary>A segment register: <c>struct kvm_segment</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public record struct VcpuSegment
{
    public ulong Base;
    public uint Limit;
    public ushort Selector;
    public byte Type;
    public byte Present;
    public byte Dpl;
    public byte Db;
    public byte S;
    public byte L;
    public byte G;
    public byte Avl;
    public byte Unusable;
    private readonly byte _padding;
}
