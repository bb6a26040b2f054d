using System.Runtime.InteropServices;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>What the delivery of an exception or interrupt touches: the IDT, descriptors, the TSS, and the stack that it pushes to.</summary>
internal static class EventDelivery
{
    private const int NonMaskable = 2;

    /// <summary>The most that is pushed: in virtual-8086 mode ten slots of 4 bytes, in long mode six of 8.</summary>
    private const int MostSlots = 10;

    /// <summary>The most bytes below a stack's top that a delivery writes: the slots, and what aligns them.</summary>
    internal const int MostBytes = 64;

    /// <summary>Lists what the events that wait for delivery touch.</summary>
    internal static void TouchPending(ref LinearMemory memory)
    {
        ref readonly VcpuEvents events = ref memory.Context.Events;
        if ((events.ExceptionInjected | events.ExceptionPending) != 0)
        {
            Touch(ref memory, events.ExceptionVector, events.ExceptionHasErrorCode != 0);
        }

        if (events.InterruptInjected != 0)
        {
            Touch(ref memory, events.InterruptVector, hasErrorCode: false);
        }

        if ((events.NmiInjected | events.NmiPending) != 0)
        {
            Touch(ref memory, NonMaskable, hasErrorCode: false);
        }
    }

    /// <summary>Lists what the delivery of an event touches.</summary>
    /// <param name="memory">The vCPU's memory.</param>
    /// <param name="vector">The event's number.</param>
    /// <param name="hasErrorCode">Whether it pushes an error code.</param>
    internal static void Touch(ref LinearMemory memory, int vector, bool hasErrorCode)
    {
        ref readonly VcpuDescriptorTable idt = ref memory.Context.SystemRegisters.Idt;
        ProcessorMode mode = memory.Mode;
        int gateBytes = mode.IsLong ? 16 : mode.IsProtected || mode.IsVirtual8086 ? 8 : 4;
        ulong at = idt.Base + (ulong)(vector * gateBytes);
        if ((vector * gateBytes) + gateBytes - 1 > idt.Limit)
        {
            return;
        }

        Span<ulong> gate = stackalloc ulong[2];
        gate.Clear();
        if (!memory.TryRead(at, MemoryMarshal.AsBytes(gate)[..gateBytes]))
        {
            return;
        }

        if (gateBytes == sizeof(uint))
        {
            const int RealModeFrame = 6;
            memory.Touch(GuestStack.Address(memory, -RealModeFrame), RealModeFrame, FaultAccess.Write);
            return;
        }

        Enter(ref memory, new Descriptor(gate[0], gate[1]), hasErrorCode ? 1 : 0);
    }

    private static void Enter(ref LinearMemory memory, in Descriptor gate, int errorCodes)
    {
        if (gate.Type == Descriptor.TaskGate)
        {
            TaskState.TouchSwitch(ref memory, gate.Target);
            return;
        }

        if (!DescriptorTables.TryRead(ref memory, gate.Target, out Descriptor code))
        {
            return;
        }

        ProcessorMode mode = memory.Mode;
        bool isInner = !code.IsConforming && code.Dpl < mode.Privilege;
        int interruptStack = mode.IsLong ? gate.InterruptStack : 0;
        ulong top;
        if (!isInner && interruptStack == 0)
        {
            top = GuestStack.Address(memory, 0);
        }
        else if (!TaskState.TryReadStack(ref memory, code.Dpl, interruptStack, out top))
        {
            return;
        }

        // Long mode aligns the stack, and saves the old one whatever the privilege.
        int slots = errorCodes + (mode.IsLong || isInner ? 5 : 3);
        int slotBytes = mode.IsLong ? 8 : gate.IsGate16 ? 2 : 4;
        ulong bytes = (ulong)((mode.IsVirtual8086 ? MostSlots : slots) * slotBytes);
        memory.Touch((mode.IsLong ? top & ~15UL : top) - bytes, bytes, FaultAccess.Write);
    }
}
