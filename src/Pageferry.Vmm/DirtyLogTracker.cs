using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Tells which pages a KVM guest wrote, or KVM for it, by the dirty logs of its slots. They log as long as this is there.</summary>
internal sealed class DirtyLogTracker : IDirtyTracker
{
    private readonly Slot[] _slots;

    internal DirtyLogTracker(VirtualMachine virtualMachine, GuestMemory memory)
    {
        // A kernel that has none clears what it tells: right too, but a page is sent twice more often.
        bool isManual = virtualMachine.HasManualDirtyLog || virtualMachine.TryEnableManualDirtyLog();
        _slots = [.. memory.Regions.Select((region, i) => new Slot(virtualMachine.CreateDirtyLog((uint)i), memory.PageAt(region.Gpa), isManual))];
    }

    /// <inheritdoc/>
    public void Fetch(PageBitmap dirty)
    {
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

    /// <inheritdoc/>
    public void Dispose() => Array.ForEach(_slots, slot => slot.Log.Dispose());

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
