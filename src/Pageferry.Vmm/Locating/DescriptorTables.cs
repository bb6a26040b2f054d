using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>Looks selectors up in the GDT and LDT as the processor does when it loads one, and lists the pages.</summary>
internal static class DescriptorTables
{
    private const int DescriptorBytes = 8;

    /// <summary>Lists the descriptor of a selector, and reads it. No descriptor is read for the null selector or beyond the table.</summary>
    /// <param name="memory">The vCPU's memory.</param>
    /// <param name="selector">The selector.</param>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="access">What is done with it, beside noting in a segment that it was accessed.</param>
    /// <returns>False if there is none, or it can't be read.</returns>
    internal static bool TryRead(ref LinearMemory memory, ulong selector, out Descriptor descriptor, FaultAccess access = FaultAccess.Read)
    {
        const ulong TableIndicator = 4;
        const ulong Rpl = 3;
        descriptor = default;
        ref readonly VcpuSystemRegisters system = ref memory.Context.SystemRegisters;
        bool isLocal = (selector & TableIndicator) != 0;
        ulong offset = selector & ushort.MaxValue & ~(TableIndicator | Rpl);
        ulong limit = isLocal ? system.Ldt.Unusable != 0 ? 0 : system.Ldt.Limit : system.Gdt.Limit;
        if ((selector & ~Rpl & ushort.MaxValue) == 0 || offset + DescriptorBytes - 1 > limit)
        {
            return false;
        }

        ulong address = (isLocal ? system.Ldt.Base : system.Gdt.Base) + offset;
        if (!memory.TryReadNumber(address, DescriptorBytes, out ulong low))
        {
            return false;
        }

        // In long mode the descriptors of the system have a second half.
        descriptor = new Descriptor(low, 0);
        if (descriptor.IsSystem && memory.Mode.IsLong)
        {
            if (!memory.TryReadNumber(address + DescriptorBytes, DescriptorBytes, out ulong high))
            {
                return false;
            }

            descriptor = new Descriptor(low, high);
        }

        if (access != FaultAccess.Read || !descriptor.IsNotedAsAccessed)
        {
            memory.Touch(address, DescriptorBytes, FaultAccess.Write);
        }

        return true;
    }
}
