using Iced.Intel;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>The stack that a vCPU is on.</summary>
internal static class GuestStack
{
    /// <summary>The linear address of a place on the stack; its width is the stack segment's, not the code's.</summary>
    /// <param name="memory">The vCPU's memory.</param>
    /// <param name="displacement">Bytes from the stack pointer.</param>
    internal static ulong Address(in LinearMemory memory, long displacement)
    {
        ref readonly VcpuContext context = ref memory.Context;
        int width = memory.Mode.Bitness == 64 ? 64 : context.SystemRegisters.Ss.Db != 0 ? 32 : 16;
        ulong offset = (context.Registers.Rsp + (ulong)displacement) & RegisterValue.Mask(width);
        return RegisterValue.Linear(context.SystemRegisters, memory.Mode.Bitness, Register.SS, offset);
    }
}
