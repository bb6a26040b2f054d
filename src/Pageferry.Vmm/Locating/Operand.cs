using Iced.Intel;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>Addresses of memory operands, and the selectors in them.</summary>
internal static class Operand
{
    /// <summary>The linear address of an instruction's memory operand.</summary>
    internal static ulong Address(in LinearMemory memory, in Instruction instruction)
    {
        int width = (instruction.MemoryBase, instruction.MemoryIndex) switch
        {
            (Register.RIP, _) => 64,
            (Register.EIP, _) => 32,
            (not Register.None, _) => instruction.MemoryBase.GetSize() * 8,
            (_, not Register.None) => instruction.MemoryIndex.GetSize() * 8,
            _ => instruction.MemoryDisplSize > 0 ? instruction.MemoryDisplSize * 8 : memory.Mode.Bitness,
        };
        bool isRelative = instruction.MemoryBase is Register.RIP or Register.EIP;
        return Address(
            memory,
            instruction.MemorySegment,
            isRelative ? Register.None : instruction.MemoryBase,
            instruction.MemoryIndex,
            instruction.MemoryIndexScale,
            instruction.MemoryDisplacement64,
            width);
    }

    /// <summary>The linear address of memory that an instruction uses, as the decoder names it.</summary>
    internal static ulong Address(in LinearMemory memory, in UsedMemory used) =>
        Address(memory, used.Segment, used.Base, used.Index, used.Scale, used.Displacement, Width(memory, used.AddressSize));

    /// <summary>The same, with an index that stands in no general register.</summary>
    internal static ulong Address(in LinearMemory memory, in UsedMemory used, long index) =>
        Address(
            memory, used.Segment, used.Base, Register.None, 1, used.Displacement + (ulong)(index * used.Scale), Width(memory, used.AddressSize));

    /// <summary>The linear address at a register, as instructions without a memory operand have it.</summary>
    internal static ulong Address(in LinearMemory memory, Register segment, Register register) =>
        Address(memory, segment, register, Register.None, 1, 0, register.GetSize() * 8);

    /// <summary>Reads a selector from a register or from memory.</summary>
    internal static bool TryReadSelector(ref LinearMemory memory, in Instruction instruction, int operand, out ulong selector)
    {
        if (instruction.GetOpKind(operand) == OpKind.Register)
        {
            selector = RegisterValue.Of(memory.Context.Registers, instruction.GetOpRegister(operand)) & ushort.MaxValue;
            return true;
        }

        return memory.TryReadNumber(Address(memory, instruction), sizeof(ushort), out selector);
    }

    /// <summary>Reads the selector of a far pointer in memory, which stands behind the offset.</summary>
    internal static bool TryReadFarSelector(ref LinearMemory memory, in Instruction instruction, out ulong selector)
    {
        ulong offsetBytes = (ulong)Math.Max(instruction.MemorySize.GetSize() - sizeof(ushort), 0);
        return memory.TryReadNumber(Address(memory, instruction) + offsetBytes, sizeof(ushort), out selector);
    }

    private static ulong Address(
        in LinearMemory memory, Register segment, Register first, Register index, int scale, ulong displacement, int width)
    {
        ref readonly VcpuContext context = ref memory.Context;
        ulong offset = RegisterValue.Of(context.Registers, first) + (RegisterValue.Of(context.Registers, index) * (ulong)scale) + displacement;
        return RegisterValue.Linear(context.SystemRegisters, memory.Mode.Bitness, segment, offset & RegisterValue.Mask(width));
    }

    private static int Width(in LinearMemory memory, CodeSize size) => size switch
    {
        CodeSize.Code64 => 64,
        CodeSize.Code32 => 32,
        CodeSize.Code16 => 16,
        _ => memory.Mode.Bitness,
    };
}
