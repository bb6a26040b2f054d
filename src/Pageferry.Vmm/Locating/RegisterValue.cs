using Iced.Intel;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>General registers and segment bases by the decoder's names.</summary>
internal static class RegisterValue
{
    /// <summary>A general register's value, of its size; 0 for none.</summary>
    internal static ulong Of(in VcpuRegisters registers, Register register)
    {
        ulong value = register.GetFullRegister() switch
        {
            Register.RAX => registers.Rax,
            Register.RBX => registers.Rbx,
            Register.RCX => registers.Rcx,
            Register.RDX => registers.Rdx,
            Register.RSI => registers.Rsi,
            Register.RDI => registers.Rdi,
            Register.RSP => registers.Rsp,
            Register.RBP => registers.Rbp,
            Register.R8 => registers.R8,
            Register.R9 => registers.R9,
            Register.R10 => registers.R10,
            Register.R11 => registers.R11,
            Register.R12 => registers.R12,
            Register.R13 => registers.R13,
            Register.R14 => registers.R14,
            Register.R15 => registers.R15,
            _ => 0,
        };
        return value & Mask(register.GetSize() * 8);
    }

    /// <summary>The segment that a segment register has loaded.</summary>
    internal static ref readonly VcpuSegment Segment(in VcpuSystemRegisters system, Register register)
    {
        switch (register)
        {
            case Register.CS: return ref system.Cs;
            case Register.ES: return ref system.Es;
            case Register.FS: return ref system.Fs;
            case Register.GS: return ref system.Gs;
            case Register.SS: return ref system.Ss;
            default: return ref system.Ds;
        }
    }

    /// <summary>The linear address of an offset in a segment; in 64-bit mode only FS and GS have a base.</summary>
    internal static ulong Linear(in VcpuSystemRegisters system, int bitness, Register segment, ulong offset)
    {
        ulong origin = bitness != 64 || segment is Register.FS or Register.GS ? Segment(system, segment).Base : 0;
        return (origin + offset) & Mask(bitness == 64 ? 64 : 32);
    }

    /// <summary>So many low bits.</summary>
    internal static ulong Mask(int bits) => bits >= 64 ? ulong.MaxValue : (1UL << bits) - 1;
}
