using Pageferry.Kvm;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Tells which pages of a KVM guest were written: by the guest and by KVM for it, as KVM's dirty log has it; by this process, as its page tables have it.</summary>
internal sealed class KvmDirtyTracker : IDirtyTracker
{
    private readonly VirtualMachine _virtualMachine;
    private readonly GuestMemory _memory;
    private readonly ScanDirtyTracker _host;
    private readonly Slot[] _slots;

    internal KvmDirtyTracker(VirtualMachine virtualMachine, GuestMemory memory)
    {
        _virtualMachine = virtualMachine;
        _memory = memory;
        _host = new ScanDirtyTracker(memory, hostOnly: true);
        try
        {
            // A kernel that has none clears what it tells: right too, but a page is sent twice more often.
            bool isManual = virtualMachine.HasManualDirtyLog || virtualMachine.TryEnableManualDirtyLog();
            SetLogging(MemoryRegionFlags.LogDirtyPages);
            _slots = [.. memory.Regions.Select((region, i) => new Slot(virtualMachine.CreateDirtyLog((uint)i), memory.PageAt(region.Gpa), isManual))];

            // What is told here was written before anything was rearmed; it has to be read to be cleared, piece by piece.
            Array.ForEach(_slots, slot => slot.Log.Read());
        }
        catch
        {
            _host.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Fetch(PageBitmap dirty)
    {
        _host.Fetch(dirty);
        foreach (Slot slot in _slots)
        {
            slot.Log.Read();
            foreach (ulong gfn in slot.Log)
            {
                _ = dirty.Add(slot.FirstPage + gfn - slot.Log.FirstGfn);
            }

            if (!slot.IsSliced)
            {
                slot.Log.Clear();
            }
        }
    }

    /// <inheritdoc/>
    public void Rearm(ulong page, ulong count)
    {
        _host.Rearm(page, count);
        foreach (Slot slot in _slots)
        {
            ulong first = Math.Max(page, slot.FirstPage);
            ulong end = Math.Min(page + count, slot.FirstPage + slot.Log.PageCount);
            if (slot.IsSliced && first < end)
            {
                slot.Log.Clear(slot.Log.FirstGfn + first - slot.FirstPage, end - first);
            }
        }
    }

    /// <summary>Ends the logging: the guest's writes cost nothing any more.</summary>
    public void Dispose()
    {
        _host.Dispose();
        Array.ForEach(_slots, slot => slot.Log.Dispose());
        SetLogging(MemoryRegionFlags.None);
    }

    private void SetLogging(MemoryRegionFlags flags)
    {
        for (int i = 0; i < _memory.Regions.Count; i++)
        {
            GuestRegion region = _memory.Regions[i];
            _virtualMachine.SetMemoryRegion((uint)i, region.Gpa, region.Length, _memory.GuestViewAddress(region.Gpa), flags);
        }
    }

    /// <summary>A slot's log.</summary>
    /// <param name="log">The log.</param>
    /// <param name="firstPage">Which page of the memory its first is.</param>
    /// <param name="isManual">Whether pages stay logged until they are cleared.</param>
    private sealed class Slot(DirtyLog log, ulong firstPage, bool isManual)
    {
        internal DirtyLog Log => log;

        internal ulong FirstPage => firstPage;

        /// <summary>Whether pages are cleared when they are rearmed. The pieces that KVM clears are counted from the slot's first page, and have to be those of the memory.</summary>
        internal bool IsSliced => isManual && firstPage % PageBitmap.PagesPerWord == 0;
    }
}
