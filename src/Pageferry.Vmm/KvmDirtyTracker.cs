using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Tells which pages of a KVM guest were written: by the guest and by KVM for it, as KVM has it; by this process, as its page tables have it.</summary>
internal sealed class KvmDirtyTracker : IDirtyTracker
{
    private readonly VirtualMachine _virtualMachine;
    private readonly GuestMemory _memory;
    private readonly ScanDirtyTracker _host;
    private readonly IDirtyTracker _guest;

    /// <param name="virtualMachine">The virtual machine, whose slots are the memory's regions.</param>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="rings">The vCPUs' dirty rings; null where there are logs.</param>
    internal KvmDirtyTracker(VirtualMachine virtualMachine, GuestMemory memory, DirtyRings? rings)
    {
        _virtualMachine = virtualMachine;
        _memory = memory;
        _host = new ScanDirtyTracker(memory, hostOnly: true);
        try
        {
            _guest = rings is null ? new DirtyLogTracker(virtualMachine, memory) : new DirtyRingTracker(rings);
            SetLogging(MemoryRegionFlags.LogDirtyPages);

            // What is told here was written before anything was rearmed. A log has to be read to be cleared piece by piece.
            _guest.Fetch(new PageBitmap(memory.PageCount));
        }
        catch
        {
            _guest?.Dispose();
            _host.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Fetch(PageBitmap dirty)
    {
        _host.Fetch(dirty);
        _guest.Fetch(dirty);
    }

    /// <inheritdoc/>
    public void Rearm(ulong page, ulong count)
    {
        _host.Rearm(page, count);
        _guest.Rearm(page, count);
    }

    /// <summary>Ends the logging: the guest's writes cost nothing any more.</summary>
    public void Dispose()
    {
        _host.Dispose();
        SetLogging(MemoryRegionFlags.None);
        _guest.Dispose();
    }

    private void SetLogging(MemoryRegionFlags flags)
    {
        for (int i = 0; i < _memory.Regions.Count; i++)
        {
            GuestRegion region = _memory.Regions[i];
            _virtualMachine.SetMemoryRegion((uint)i, region.Gpa, region.Length, _memory.GuestViewAddress(region.Gpa), flags);
        }
    }
}
