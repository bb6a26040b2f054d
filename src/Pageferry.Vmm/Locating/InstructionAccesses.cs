using Iced.Intel;

namespace Pageferry.Vmm;

/// <summary>Lists every page that an instruction's operands can touch, explicit and implicit ones.</summary>
internal sealed class InstructionAccesses(ExtendedState state)
{
    private readonly InstructionInfoFactory _factory = new();

    /// <summary>Lists what an instruction touches before it is done, or before it can be interrupted and goes on.</summary>
    internal void Touch(ref LinearMemory memory, in Instruction instruction)
    {
        if (IsRepeatedNoMore(memory, instruction))
        {
            return;
        }

        foreach (UsedMemory used in _factory.GetInfo(instruction, InstructionInfoOptions.NoRegisterUsage).GetUsedMemory())
        {
            FaultAccess access = AccessOf(used.Access);
            if (access == FaultAccess.None)
            {
                continue;
            }

            if (used.Index.IsVectorRegister())
            {
                VectorAddresses.Touch(ref memory, instruction, used, access, state);
            }
            else if (used.MemorySize == MemorySize.Tile)
            {
                TouchTile(ref memory, used, access);
            }
            else
            {
                memory.Touch(Operand.Address(memory, used) + BitOffset(memory, instruction), Size(memory, instruction, used), access);
                TouchOtherStack(ref memory, used, access);
            }
        }

        TouchUnnamed(ref memory, instruction);
        SegmentLoads.Touch(ref memory, instruction);
        ControlTransfers.Touch(ref memory, instruction);
    }

    private static FaultAccess AccessOf(OpAccess access) => access switch
    {
        OpAccess.Read or OpAccess.CondRead => FaultAccess.Read,
        OpAccess.Write or OpAccess.CondWrite => FaultAccess.Write,
        OpAccess.ReadWrite or OpAccess.ReadCondWrite => FaultAccess.Read | FaultAccess.Write,
        _ => FaultAccess.None,
    };

    private static bool IsRepeated(in Instruction instruction) =>
        instruction.IsStringInstruction && (instruction.HasRepPrefix || instruction.HasRepnePrefix);

    /// <summary>A repeated string instruction whose count has come to 0 touches nothing.</summary>
    private static bool IsRepeatedNoMore(in LinearMemory memory, in Instruction instruction)
    {
        if (!IsRepeated(instruction))
        {
            return false;
        }

        Register count = StringAddressBits(instruction) switch { 64 => Register.RCX, 32 => Register.ECX, _ => Register.CX };
        return RegisterValue.Of(memory.Context.Registers, count) == 0;
    }

    private static int StringAddressBits(in Instruction instruction)
    {
        for (int operand = 0; operand < instruction.OpCount; operand++)
        {
            switch (instruction.GetOpKind(operand))
            {
                case OpKind.MemorySegSI or OpKind.MemorySegDI or OpKind.MemoryESDI: return 16;
                case OpKind.MemorySegESI or OpKind.MemorySegEDI or OpKind.MemoryESEDI: return 32;
            }
        }

        return 64;
    }

    /// <summary>The bytes of one access. A repeated string instruction can be interrupted after each element, and is decoded again then.</summary>
    private ulong Size(in LinearMemory memory, in Instruction instruction, in UsedMemory used)
    {
        if (used.MemorySize is MemorySize.Xsave or MemorySize.Xsave64)
        {
            bool withSupervisor = instruction.Mnemonic is Mnemonic.Xsaves or Mnemonic.Xsaves64 or Mnemonic.Xrstors or Mnemonic.Xrstors64;
            ulong components = (uint)memory.Context.Registers.Rax | (memory.Context.Registers.Rdx << 32);
            return XsaveLayout.Bytes(components & state.Xcr0, withSupervisor);
        }

        int size = used.MemorySize == MemorySize.Unknown ? instruction.MemorySize.GetSize() : used.MemorySize.GetSize();
        return (ulong)Math.Max(size, 1);
    }

    /// <summary>BT and its like with a register take any bit, counted from the operand's first.</summary>
    private static ulong BitOffset(in LinearMemory memory, in Instruction instruction)
    {
        if (instruction.Mnemonic is not (Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc) || instruction.Op1Kind != OpKind.Register)
        {
            return 0;
        }

        int size = instruction.Op1Register.GetSize();
        int unused = 64 - (size * 8);
        long bit = (long)(RegisterValue.Of(memory.Context.Registers, instruction.Op1Register) << unused) >> unused;
        return (ulong)(bit >> 3 & -size);
    }

    /// <summary>The decoder takes the stack pointer's width from the code; where the stack segment has another, that one counts.</summary>
    private static void TouchOtherStack(ref LinearMemory memory, in UsedMemory used, FaultAccess access)
    {
        if (memory.Mode.Bitness != 64 && used is { Segment: Register.SS, Base: Register.SP or Register.ESP, Index: Register.None })
        {
            int width = used.Base.GetSize() * 8;
            int unused = 64 - width;
            long displacement = (long)(used.Displacement << unused) >> unused;
            memory.Touch(GuestStack.Address(memory, displacement), (ulong)used.MemorySize.GetSize(), access);
        }
    }

    /// <summary>Up to 16 rows of 64 bytes, at the distance that the index gives.</summary>
    private static void TouchTile(ref LinearMemory memory, in UsedMemory used, FaultAccess access)
    {
        const int Rows = 16;
        const ulong RowBytes = 64;
        long stride = (long)RegisterValue.Of(memory.Context.Registers, used.Index);
        for (int row = 0; row < Rows; row++)
        {
            memory.Touch(Operand.Address(memory, used, stride * row), RowBytes, access);
        }
    }

    /// <summary>What the decoder names no memory for.</summary>
    private static void TouchUnnamed(ref LinearMemory memory, in Instruction instruction)
    {
        const ulong CacheLineMask = 63;
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Clzero:
                memory.Touch(Operand.Address(memory, Segment(instruction), Accumulator(instruction.Code)) & ~CacheLineMask, CacheLineMask + 1, FaultAccess.Write);
                break;

            case Mnemonic.Monitor or Mnemonic.Monitorx:
                memory.Touch(Operand.Address(memory, Segment(instruction), Accumulator(instruction.Code)), 1, FaultAccess.Read);
                break;

            // The new stack pointer is tried with a write.
            case Mnemonic.Enter:
                int nesting = instruction.Immediate8_2nd & 31;
                int slot = instruction.Code switch { Code.Enterq_imm16_imm8 => 8, Code.Enterd_imm16_imm8 => 4, _ => 2 };
                memory.Touch(GuestStack.Address(memory, -((nesting + 1L) * slot) - instruction.Immediate16), 1, FaultAccess.Write);
                break;

            case Mnemonic.In or Mnemonic.Insb or Mnemonic.Insw or Mnemonic.Insd:
                TaskState.TouchPortPermission(ref memory, Port(memory, instruction, operand: 1));
                break;

            case Mnemonic.Out or Mnemonic.Outsb or Mnemonic.Outsw or Mnemonic.Outsd:
                TaskState.TouchPortPermission(ref memory, Port(memory, instruction, operand: 0));
                break;

            // With PAE, these load the four entries of the first table.
            case Mnemonic.Mov when instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsCR() && !memory.Mode.IsLong:
                ulong table = instruction.Op0Register == Register.CR3
                    ? RegisterValue.Of(memory.Context.Registers, instruction.Op1Register)
                    : memory.Context.SystemRegisters.Cr3;
                memory.TouchPhysical(table & 0xFFFF_FFE0, FaultAccess.Read);
                break;
        }
    }

    private static ulong Port(in LinearMemory memory, in Instruction instruction, int operand) => instruction.GetOpKind(operand) == OpKind.Immediate8
        ? instruction.Immediate8
        : RegisterValue.Of(memory.Context.Registers, Register.DX);

    private static Register Segment(in Instruction instruction) =>
        instruction.SegmentPrefix == Register.None ? Register.DS : instruction.SegmentPrefix;

    private static Register Accumulator(Code code) => code switch
    {
        Code.Clzerow or Code.Monitorw or Code.Monitorxw => Register.AX,
        Code.Clzerod or Code.Monitord or Code.Monitorxd => Register.EAX,
        _ => Register.RAX,
    };
}
