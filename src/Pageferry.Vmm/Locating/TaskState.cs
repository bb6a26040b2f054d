using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>What the processor looks up in the TSS: stacks of inner privilege, port permissions, and other tasks.</summary>
internal static class TaskState
{
    private const ulong Bytes = 104;

    /// <summary>Lists where the stack of an inner privilege stands, and reads it.</summary>
    /// <param name="memory">The vCPU's memory.</param>
    /// <param name="privilege">The inner privilege.</param>
    /// <param name="interruptStack">In long mode, the number of the stack to use whatever the privilege; 0 for none.</param>
    /// <param name="top">The linear address of the stack's end.</param>
    /// <returns>False if it can't be read.</returns>
    internal static bool TryReadStack(ref LinearMemory memory, int privilege, int interruptStack, out ulong top)
    {
        const ulong LongStacks = 4;
        const ulong LongInterruptStacks = 0x24;
        ref readonly VcpuSegment tss = ref memory.Context.SystemRegisters.Tr;
        if (memory.Mode.IsLong)
        {
            ulong at = interruptStack > 0 ? LongInterruptStacks + (((ulong)interruptStack - 1) * 8) : LongStacks + ((ulong)privilege * 8);
            return memory.TryReadNumber(tss.Base + at, 8, out top);
        }

        // ESP0 and SS0, or SP0 and SS0.
        ulong bytes = Is32Bit(tss) ? 4UL : 2UL;
        ulong stack = tss.Base + bytes + ((ulong)privilege * bytes * 2);
        top = 0;
        if (!memory.TryReadNumber(stack, (int)bytes, out ulong offset)
            || !memory.TryReadNumber(stack + bytes, sizeof(ushort), out ulong selector)
            || !DescriptorTables.TryRead(ref memory, selector, out Descriptor segment))
        {
            return false;
        }

        top = (segment.Base + offset) & uint.MaxValue;
        return true;
    }

    /// <summary>Lists what says whether a port may be used, where the privilege alone does not.</summary>
    internal static void TouchPortPermission(ref LinearMemory memory, ulong port)
    {
        const ulong MapOffset = 0x66;
        int ioPrivilege = (int)(memory.Context.Registers.Rflags >> 12 & 3);
        if (!memory.Mode.IsVirtual8086 && (!memory.Mode.IsProtected || memory.Mode.Privilege <= ioPrivilege))
        {
            return;
        }

        // Two bytes are read: the ports of one access may lie in both.
        ref readonly VcpuSegment tss = ref memory.Context.SystemRegisters.Tr;
        if (Is32Bit(tss) && memory.TryReadNumber(tss.Base + MapOffset, sizeof(ushort), out ulong map))
        {
            memory.Touch(tss.Base + map + (port / 8), sizeof(ushort), FaultAccess.Read);
        }
    }

    /// <summary>Lists the TSS that is left and the one that is entered.</summary>
    internal static void TouchSwitch(ref LinearMemory memory, ulong entered)
    {
        memory.Touch(memory.Context.SystemRegisters.Tr.Base, Bytes, FaultAccess.Read | FaultAccess.Write);
        _ = DescriptorTables.TryRead(ref memory, memory.Context.SystemRegisters.Tr.Selector, out _, FaultAccess.Write);
        if (DescriptorTables.TryRead(ref memory, entered, out Descriptor tss, FaultAccess.Write) && tss.IsTss)
        {
            memory.Touch(tss.Base, Bytes, FaultAccess.Read | FaultAccess.Write);
        }
    }

    /// <summary>Lists the way back to the task that was interrupted or that called.</summary>
    internal static void TouchReturn(ref LinearMemory memory)
    {
        if (memory.TryReadNumber(memory.Context.SystemRegisters.Tr.Base, sizeof(ushort), out ulong link))
        {
            TouchSwitch(ref memory, link);
        }
    }

    private static bool Is32Bit(in VcpuSegment tss) => (tss.Type & 8) != 0;
}
