using Iced.Intel;

namespace Pageferry.Vmm;

/// <summary>Software interrupts, far jumps, calls and returns: what they look up beside their operands and the stack they are on.</summary>
internal static class ControlTransfers
{
    private const ulong Rpl = 3;

    /// <summary>Lists what an instruction looks up, if it is such a transfer.</summary>
    internal static void Touch(ref LinearMemory memory, in Instruction instruction)
    {
        const int Debug = 1;
        const int Breakpoint = 3;
        const int Overflow = 4;
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Int:
                EventDelivery.Touch(ref memory, instruction.Immediate8, hasErrorCode: false);
                break;

            case Mnemonic.Int1:
                EventDelivery.Touch(ref memory, Debug, hasErrorCode: false);
                break;

            case Mnemonic.Int3:
                EventDelivery.Touch(ref memory, Breakpoint, hasErrorCode: false);
                break;

            case Mnemonic.Into:
                EventDelivery.Touch(ref memory, Overflow, hasErrorCode: false);
                break;

            case Mnemonic.Call or Mnemonic.Jmp when IsFar(instruction) && memory.Mode.IsProtected:
                Go(ref memory, instruction);
                break;

            case Mnemonic.Retf when memory.Mode.IsProtected:
                int slot = SlotBytes(instruction.Code);
                int dropped = instruction.OpCount > 0 ? instruction.Immediate16 : 0;
                Return(ref memory, slot, (slot * 2) + dropped, everyStack: false);
                break;

            case Mnemonic.Iret or Mnemonic.Iretd or Mnemonic.Iretq:
                ReturnFromInterrupt(ref memory, SlotBytes(instruction.Code));
                break;
        }
    }

    private static bool IsFar(in Instruction instruction) => instruction.Op0Kind is OpKind.FarBranch16 or OpKind.FarBranch32
        || instruction.MemorySize is MemorySize.SegPtr16 or MemorySize.SegPtr32 or MemorySize.SegPtr64;

    private static int SlotBytes(Code code) => code switch
    {
        Code.Retfq or Code.Retfq_imm16 or Code.Iretq => 8,
        Code.Retfd or Code.Retfd_imm16 or Code.Iretd => 4,
        _ => 2,
    };

    private static void Go(ref LinearMemory memory, in Instruction instruction)
    {
        ulong selector = instruction.FarBranchSelector;
        if ((instruction.Op0Kind == OpKind.Memory && !Operand.TryReadFarSelector(ref memory, instruction, out selector))
            || !DescriptorTables.TryRead(ref memory, selector, out Descriptor target))
        {
            return;
        }

        if (target.IsTss)
        {
            TaskState.TouchSwitch(ref memory, selector);
        }
        else if (target.IsSystem && target.Type == Descriptor.TaskGate)
        {
            TaskState.TouchSwitch(ref memory, target.Target);
        }
        else if (target.IsSystem && target.Type is Descriptor.CallGate or Descriptor.CallGate16
            && DescriptorTables.TryRead(ref memory, target.Target, out Descriptor code)
            && instruction.Mnemonic == Mnemonic.Call)
        {
            CallThroughGate(ref memory, target, code);
        }
    }

    /// <summary>The old stack and the address to return to are pushed on the inner stack, and the parameters copied.</summary>
    private static void CallThroughGate(ref LinearMemory memory, in Descriptor gate, in Descriptor code)
    {
        ulong slot = memory.Mode.IsLong ? 8UL : gate.IsGate16 ? 2UL : 4UL;
        if (code.IsConforming || code.Dpl >= memory.Mode.Privilege)
        {
            memory.Touch(GuestStack.Address(memory, -(long)slot * 2), slot * 2, FaultAccess.Write);
            return;
        }

        ulong parameters = memory.Mode.IsLong ? 0 : (ulong)gate.Parameters * slot;
        memory.Touch(GuestStack.Address(memory, 0), parameters, FaultAccess.Read);
        if (TaskState.TryReadStack(ref memory, code.Dpl, interruptStack: 0, out ulong top))
        {
            ulong pushed = (slot * 4) + parameters;
            memory.Touch(top - pushed, pushed, FaultAccess.Write);
        }
    }

    private static void ReturnFromInterrupt(ref LinearMemory memory, int slot)
    {
        const ulong NestedTask = 1 << 14;
        const ulong Virtual8086 = 1 << 17;
        const ulong Virtual8086Slots = 9;
        if (!memory.Mode.IsProtected)
        {
            return;
        }

        if (!memory.Mode.IsLong)
        {
            if ((memory.Context.Registers.Rflags & NestedTask) != 0)
            {
                TaskState.TouchReturn(ref memory);
                return;
            }

            if (slot == sizeof(uint) && memory.Mode.Privilege == 0
                && memory.TryReadNumber(GuestStack.Address(memory, slot * 2), slot, out ulong flags) && (flags & Virtual8086) != 0)
            {
                memory.Touch(GuestStack.Address(memory, 0), (ulong)slot * Virtual8086Slots, FaultAccess.Read);
                return;
            }
        }

        // 64-bit code pops the stack whatever the privilege.
        Return(ref memory, slot, slot * 3, everyStack: memory.Mode.Bitness == 64);
    }

    private static void Return(ref LinearMemory memory, int slot, int outerStack, bool everyStack)
    {
        if (!memory.TryReadNumber(GuestStack.Address(memory, slot), sizeof(ushort), out ulong code))
        {
            return;
        }

        _ = DescriptorTables.TryRead(ref memory, code, out _);
        if (everyStack || (int)(code & Rpl) > memory.Mode.Privilege)
        {
            memory.Touch(GuestStack.Address(memory, outerStack), (ulong)slot * 2, FaultAccess.Read);
            if (memory.TryReadNumber(GuestStack.Address(memory, outerStack + slot), sizeof(ushort), out ulong stack))
            {
                _ = DescriptorTables.TryRead(ref memory, stack, out _);
            }
        }
    }
}
