using System.Runtime.InteropServices;

namespace Pageferry.Kvm;

#pragma warning disable CS1591 // The names are the processor's.

/// <summary>The general registers: <c>struct kvm_regs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public record struct VcpuRegisters
{
    public ulong Rax;
    public ulong Rbx;
    public ulong Rcx;
    public ulong Rdx;
    public ulong Rsi;
    public ulong Rdi;
    public ulong Rsp;
    public ulong Rbp;
    public ulong R8;
    public ulong R9;
    public ulong R10;
    public ulong R11;
    public ulong R12;
    public ulong R13;
    public ulong R14;
    public ulong R15;
    public ulong Rip;
    public ulong Rflags;
}
