using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>The mode that a vCPU is in, as far as it decides what an instruction means.</summary>
/// <param name="Bitness">The code segment's: 16, 32 or 64.</param>
/// <param name="Privilege">CPL: 0 to 3.</param>
/// <param name="IsLong">Long mode: 64-bit, or compatibility mode within it.</param>
/// <param name="IsProtected">Selectors name descriptors: neither real mode nor virtual-8086 mode.</param>
/// <param name="IsVirtual8086">Virtual-8086 mode.</param>
internal readonly record struct ProcessorMode(int Bitness, int Privilege, bool IsLong, bool IsProtected, bool IsVirtual8086)
{
    private const ulong Cr0Protected = 1;
    private const ulong RflagsVirtual8086 = 1 << 17;
    private const ulong EferLongActive = 1 << 10;

    /// <summary>The bytes of a stack slot of 64-bit, 32-bit or 16-bit code.</summary>
    internal int SlotBytes => Bitness / 8;

    internal static ProcessorMode Of(in VcpuContext context)
    {
        ref readonly VcpuSystemRegisters system = ref context.SystemRegisters;
        bool isProtected = (system.Cr0 & Cr0Protected) != 0;
        bool isLong = (system.Efer & EferLongActive) != 0;
        bool isVirtual8086 = isProtected && !isLong && (context.Registers.Rflags & RflagsVirtual8086) != 0;
        int bitness = isLong && system.Cs.L != 0 ? 64 : system.Cs.Db != 0 && !isVirtual8086 ? 32 : 16;
        int privilege = isVirtual8086 ? 3 : isProtected ? system.Ss.Dpl & 3 : 0;
        return new ProcessorMode(bitness, privilege, isLong, isProtected && !isVirtual8086, isVirtual8086);
    }
}
