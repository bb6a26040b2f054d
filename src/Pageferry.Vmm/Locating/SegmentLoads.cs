using Iced.Intel;

namespace Pageferry.Vmm;

/// <summary>Instructions that look selectors up: loads of segment and task registers, and questions about descriptors.</summary>
internal static class SegmentLoads
{
    /// <summary>Lists the descriptor that an instruction looks up, if it does.</summary>
    internal static void Touch(ref LinearMemory memory, in Instruction instruction)
    {
        if (!memory.Mode.IsProtected)
        {
            return;
        }

        switch (instruction.Mnemonic)
        {
            case Mnemonic.Mov when instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsSegmentRegister():
            case Mnemonic.Lar or Mnemonic.Lsl:
                Look(ref memory, instruction, operand: 1, FaultAccess.Read);
                break;

            case Mnemonic.Pop when instruction.Op0Kind == OpKind.Register && instruction.Op0Register.IsSegmentRegister():
                if (memory.TryReadNumber(GuestStack.Address(memory, 0), sizeof(ushort), out ulong popped))
                {
                    _ = DescriptorTables.TryRead(ref memory, popped, out _);
                }

                break;

            case Mnemonic.Lds or Mnemonic.Les or Mnemonic.Lfs or Mnemonic.Lgs or Mnemonic.Lss:
                if (Operand.TryReadFarSelector(ref memory, instruction, out ulong loaded))
                {
                    _ = DescriptorTables.TryRead(ref memory, loaded, out _);
                }

                break;

            // The task's descriptor becomes busy.
            case Mnemonic.Ltr:
                Look(ref memory, instruction, operand: 0, FaultAccess.Write);
                break;

            case Mnemonic.Lldt or Mnemonic.Verr or Mnemonic.Verw:
                Look(ref memory, instruction, operand: 0, FaultAccess.Read);
                break;
        }
    }

    private static void Look(ref LinearMemory memory, in Instruction instruction, int operand, FaultAccess access)
    {
        if (Operand.TryReadSelector(ref memory, instruction, operand, out ulong selector))
        {
            _ = DescriptorTables.TryRead(ref memory, selector, out _, access);
        }
    }
}
