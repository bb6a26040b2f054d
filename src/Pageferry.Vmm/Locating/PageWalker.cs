using System.Runtime.InteropServices;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>Translates a linear address as the processor does, in every paging mode, and lists the page-table pages on the way.</summary>
internal static class PageWalker
{
    /// <summary>The most pages of one walk: five tables and the page itself.</summary>
    internal const int MostPages = 6;

    private const ulong Cr0Paging = 1UL << 31;
    private const ulong Cr4LargePages = 1 << 4;
    private const ulong Cr4Pae = 1 << 5;
    private const ulong Cr4FiveLevels = 1 << 12;
    private const ulong EferLongActive = 1 << 10;

    private const ulong EntryPresent = 1;
    private const ulong EntryAccessed = 1 << 5;
    private const ulong EntryDirty = 1 << 6;
    private const ulong EntryLarge = 1 << 7;
    private const ulong Frame = 0x000F_FFFF_FFFF_F000;

    /// <summary>Walks to a linear address.</summary>
    /// <param name="read">Reads the tables.</param>
    /// <param name="system">The control registers.</param>
    /// <param name="linear">The linear address.</param>
    /// <param name="access">What is done there: a write makes the page dirty.</param>
    /// <param name="candidates">Gets the pages of the tables, and the page.</param>
    /// <param name="gpa">The guest physical address.</param>
    /// <returns>False if the guest has no page there, or a table can't be read.</returns>
    internal static bool TryWalk(
        GuestReader read, in VcpuSystemRegisters system, ulong linear, FaultAccess access, ref FaultCandidates candidates, out ulong gpa)
    {
        if ((system.Cr0 & Cr0Paging) == 0)
        {
            gpa = linear & uint.MaxValue;
            candidates.Add(gpa, access);
            return true;
        }

        bool found = (system.Cr4 & Cr4Pae) == 0
            ? TryWalkTwoLevels(read, system, linear, access, ref candidates, out gpa)
            : TryWalkLevels(read, system, linear, access, ref candidates, out gpa);
        if (found)
        {
            candidates.Add(gpa, access);
        }

        return found;
    }

    /// <summary>Tables of 512 entries of 8 bytes: PAE, and the four or five levels of long mode.</summary>
    private static bool TryWalkLevels(
        GuestReader read, in VcpuSystemRegisters system, ulong linear, FaultAccess access, ref FaultCandidates candidates, out ulong gpa)
    {
        const int LargestPage = 3; // the level whose entries are of 1 GiB
        bool isLong = (system.Efer & EferLongActive) != 0;
        int level = isLong ? (system.Cr4 & Cr4FiveLevels) != 0 ? 5 : 4 : 3;
        ulong table = isLong ? system.Cr3 & Frame : system.Cr3 & 0xFFFF_FFE0;
        gpa = 0;
        for (; ; level--)
        {
            int shift = 12 + (9 * (level - 1));
            ulong index = linear >> shift;

            // PAE's first table has 4 entries, with nothing noted in them.
            bool isRootOfPae = level == 3 && !isLong;
            ulong at = table + ((index & (isRootOfPae ? 3UL : 511UL)) * sizeof(ulong));
            ulong entry = 0;
            candidates.Add(at, FaultAccess.Read);
            if (!read(at, MemoryMarshal.AsBytes(new Span<ulong>(ref entry))) || (entry & EntryPresent) == 0)
            {
                return false;
            }

            bool isLarge = level > 1 && (entry & EntryLarge) != 0 && !isRootOfPae;
            if (isLarge && level > LargestPage)
            {
                return false;
            }

            bool isLast = level == 1 || isLarge;
            if (!isRootOfPae)
            {
                Note(at, entry, isLast, access, ref candidates);
            }

            if (isLast)
            {
                ulong offsets = (1UL << shift) - 1;
                gpa = (entry & Frame & ~offsets) | (linear & offsets);
                return true;
            }

            table = entry & Frame;
        }
    }

    /// <summary>Tables of 1024 entries of 4 bytes: 32-bit paging, whose large pages have 4 MiB and physical addresses of 40 bits.</summary>
    private static bool TryWalkTwoLevels(
        GuestReader read, in VcpuSystemRegisters system, ulong linear, FaultAccess access, ref FaultCandidates candidates, out ulong gpa)
    {
        gpa = 0;
        ulong at = (system.Cr3 & 0xFFFF_F000) + ((linear >> 22 & 1023) * sizeof(uint));
        if (!TryReadEntry(read, at, ref candidates, out uint entry))
        {
            return false;
        }

        bool isLarge = (entry & EntryLarge) != 0 && (system.Cr4 & Cr4LargePages) != 0;
        Note(at, entry, isLarge, access, ref candidates);
        if (isLarge)
        {
            gpa = (entry & 0xFFC0_0000) | ((ulong)(entry >> 13 & 0xFF) << 32) | (linear & 0x3F_FFFF);
            return true;
        }

        at = (entry & 0xFFFF_F000) + ((linear >> 12 & 1023) * sizeof(uint));
        if (!TryReadEntry(read, at, ref candidates, out entry))
        {
            return false;
        }

        Note(at, entry, isLast: true, access, ref candidates);
        gpa = (entry & 0xFFFF_F000) | (linear & 0xFFF);
        return true;
    }

    private static bool TryReadEntry(GuestReader read, ulong at, ref FaultCandidates candidates, out uint entry)
    {
        entry = 0;
        candidates.Add(at, FaultAccess.Read);
        return read(at, MemoryMarshal.AsBytes(new Span<uint>(ref entry))) && (entry & EntryPresent) != 0;
    }

    /// <summary>The processor writes to an entry that does not yet say what is done with the page.</summary>
    private static void Note(ulong at, ulong entry, bool isLast, FaultAccess access, ref FaultCandidates candidates)
    {
        ulong noted = isLast && (access & FaultAccess.Write) != FaultAccess.None ? EntryAccessed | EntryDirty : EntryAccessed;
        if ((entry & noted) != noted)
        {
            candidates.Add(at, FaultAccess.Write);
        }
    }
}
