using System.Runtime.InteropServices;
using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>
/// The guest pages that KVM accesses by itself on a vCPU's behalf. A failure to access one does not come back as an exit, so they are placed before the vCPU
/// runs, and never armed, where userfaults are delivered as exits.
/// </summary>
/// <remarks>
/// What KVM writes for the guest is known from the vCPU's MSRs. Where KVM walks the guest's page tables itself (shadow paging: no EPT or NPT, or a software KVM),
/// a table that it can't read is a page fault to the guest: there the tables, and the tables of events and segments, are kept accessible too. A guest that then makes
/// new tables in armed memory needs its userfaults by the queue.
/// </remarks>
internal static class KvmOwnPages
{
    /// <summary>More page tables than this, for 128 GiB mapped by small pages, are no business of a vCPU's start.</summary>
    private const int MostTables = 65_536;

    private const ulong Cr0Paging = 1UL << 31;
    private const ulong Cr4Pae = 1 << 5;
    private const ulong Cr4FiveLevels = 1 << 12;
    private const ulong EferLongActive = 1 << 10;
    private const ulong EntryPresent = 1;
    private const ulong EntryLarge = 1 << 7;
    private const ulong Frame = 0x000F_FFFF_FFFF_F000;
    private const int MostSelectors = 0x10000;

    /// <summary>CPL 0 to 2, and the stacks of the TSS in long mode that gates ask for by their number.</summary>
    private const int InnerPrivileges = 3;
    private const int InterruptStacks = 7;

    /// <summary>MSRs that hold the address of a page KVM writes, and the bits of them that are none: kvmclock (old and new), steal time, async page faults, PV EOI.</summary>
    private static readonly (uint Index, ulong NoAddress)[] s_msrs =
    [
        (0x12, 1), (0x4b56_4d01, 1), (0x4b56_4d03, 0x3F), (0x4b56_4d02, 0x3F), (0x4b56_4d04, 3),
    ];

    /// <summary>Places a vCPU's pages of this kind, and keeps them accessible.</summary>
    /// <param name="engine">Answers the guest's userfaults.</param>
    /// <param name="vcpu">The vCPU, which is about to run on this thread.</param>
    /// <param name="walksTables">Whether KVM walks the guest's tables itself.</param>
    /// <param name="mayWait">Whether the vCPU may go on waiting.</param>
    /// <returns>Whether all are placed; false when <paramref name="mayWait"/> said no.</returns>
    /// <exception cref="NotSupportedException">The guest has too many page tables.</exception>
    internal static bool TryPlace(FaultEngine engine, VirtualCpu vcpu, bool walksTables, Func<bool> mayWait)
    {
        foreach ((uint index, ulong noAddress) in s_msrs)
        {
            // The lowest bit of each says that it is in use.
            if (vcpu.TryGetMsr(index, out ulong value) && (value & 1) != 0 && !TryKeep(engine, value & ~noAddress, mayWait))
            {
                return false;
            }
        }

        return !walksTables
            || (TryPlaceTables(engine, vcpu.SystemRegisters, mayWait) && TryPlaceDescriptors(engine, vcpu.SystemRegisters, mayWait) && TryPlaceStacks(engine, vcpu, mayWait));
    }

    private static bool TryPlaceTables(FaultEngine engine, in VcpuSystemRegisters system, Func<bool> mayWait)
    {
        if ((system.Cr0 & Cr0Paging) == 0)
        {
            return true;
        }

        bool isPae = (system.Cr4 & Cr4Pae) != 0;
        int levels = (system.Efer & EferLongActive) != 0 ? (system.Cr4 & Cr4FiveLevels) != 0 ? 5 : 4 : isPae ? 3 : 2;
        var seen = new HashSet<ulong>();
        var left = new Stack<(ulong Table, int Level)>();
        left.Push((system.Cr3 & Frame, levels));
        var entries = new byte[Page.Size];
        while (left.TryPop(out (ulong Table, int Level) table))
        {
            // Tables may map themselves.
            if (!engine.Memory.Contains(table.Table) || !seen.Add(table.Table))
            {
                continue;
            }

            if (seen.Count > MostTables)
            {
                throw new NotSupportedException($"The guest has more than {MostTables} page tables. Use --delivery queue.");
            }

            if (!TryKeep(engine, table.Table, mayWait))
            {
                return false;
            }

            if (table.Level > 1 && engine.Memory.TryRead(table.Table, entries))
            {
                PushTables(left, entries, table.Level - 1, isPae);
            }
        }

        return true;
    }

    private static void PushTables(Stack<(ulong Table, int Level)> left, byte[] entries, int level, bool isPae)
    {
        if (!isPae)
        {
            foreach (uint entry in MemoryMarshal.Cast<byte, uint>(entries))
            {
                Push(left, entry, level);
            }

            return;
        }

        foreach (ulong entry in MemoryMarshal.Cast<byte, ulong>(entries))
        {
            Push(left, entry, level);
        }
    }

    private static void Push(Stack<(ulong Table, int Level)> left, ulong entry, int level)
    {
        if ((entry & EntryPresent) != 0 && (entry & EntryLarge) == 0)
        {
            left.Push((entry & Frame, level));
        }
    }

    /// <summary>The tables of interrupts and segments, the task state, and the instruction after those: what delivering an event reads.</summary>
    private static bool TryPlaceDescriptors(FaultEngine engine, in VcpuSystemRegisters system, Func<bool> mayWait) =>
        TryPlaceRange(engine, system, system.Idt.Base, system.Idt.Limit, mayWait) &&
        TryPlaceRange(engine, system, system.Gdt.Base, system.Gdt.Limit, mayWait) &&
        TryPlaceRange(engine, system, system.Ldt.Base, system.Ldt.Limit, mayWait) &&
        TryPlaceRange(engine, system, system.Tr.Base, system.Tr.Limit, mayWait);

    /// <summary>The stacks that the TSS names, which delivering an event to inner privilege writes.</summary>
    private static bool TryPlaceStacks(FaultEngine engine, VirtualCpu vcpu, Func<bool> mayWait)
    {
        ref readonly VcpuContext context = ref vcpu.ReadContext();
        ProcessorMode mode = ProcessorMode.Of(context);
        for (int stack = 0; mode.IsProtected && stack < InnerPrivileges + (mode.IsLong ? InterruptStacks : 0); stack++)
        {
            var memory = new LinearMemory(engine.Memory.TryRead, in context, candidates: []);
            bool isInner = stack < InnerPrivileges;
            if (TaskState.TryReadStack(ref memory, isInner ? stack : 0, isInner ? 0 : stack - InnerPrivileges + 1, out ulong top) && top != 0
                && !TryPlaceRange(engine, context.SystemRegisters, top - EventDelivery.MostBytes, EventDelivery.MostBytes - 1, mayWait))
            {
                return false;
            }
        }

        return true;
    }

    private static bool TryPlaceRange(FaultEngine engine, in VcpuSystemRegisters system, ulong linear, uint limit, Func<bool> mayWait)
    {
        Span<FaultCandidate> walked = stackalloc FaultCandidate[PageWalker.MostPages];
        ulong offset = linear % Page.Size;

        // Counted, not compared: where a guest says that its tables lie, the last address is followed by the first.
        ulong pages = ((offset + Math.Min(limit, MostSelectors - 1)) / Page.Size) + 1;
        for (ulong i = 0; i < pages; i++)
        {
            ulong page = linear - offset + (i * Page.Size);
            var candidates = new FaultCandidates(walked);
            if (PageWalker.TryWalk(engine.Memory.TryRead, system, page, FaultAccess.Read, ref candidates, out ulong gpa) && !TryKeep(engine, gpa, mayWait))
            {
                return false;
            }
        }

        return true;
    }

    private static bool TryKeep(FaultEngine engine, ulong gpa, Func<bool> mayWait) => !engine.Memory.Contains(gpa) || engine.KeepAccessible(gpa, mayWait);
}
