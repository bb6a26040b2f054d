using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>The dirty rings of a machine's vCPUs, and the pages that were taken out of them and not told yet.</summary>
/// <remarks>
/// A page is taken, reset and only then told, all under one lock: who is told of it reads it at once, and a write that the kernel does not see any more
/// because the page is still in a ring would be lost. A vCPU whose ring is full waits for the lock no longer than it takes to empty the rings.
/// </remarks>
internal sealed class DirtyRings
{
    /// <summary>
    /// Entries of each ring: 64 MiB written until a vCPU has to leave the guest, and a few milliseconds to make room for as much again. 256 KiB of memory.
    /// </summary>
    internal const int Entries = 16_384;

    private readonly Lock _lock = new();
    private readonly VirtualMachine _virtualMachine;
    private readonly DirtyRing[] _rings;
    private readonly ulong[] _firstPages;
    private readonly PageBitmap _untold;

    /// <param name="virtualMachine">The virtual machine, whose slots are the memory's regions.</param>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="rings">The vCPUs' rings.</param>
    internal DirtyRings(VirtualMachine virtualMachine, GuestMemory memory, DirtyRing[] rings)
    {
        _virtualMachine = virtualMachine;
        _rings = rings;
        _firstPages = [.. memory.Regions.Select(region => memory.PageAt(region.Gpa))];
        _untold = new PageBitmap(memory.PageCount);
    }

    /// <summary>Makes room in a ring that is full. For the vCPU's own thread.</summary>
    /// <param name="ring">The ring.</param>
    internal void Empty(DirtyRing ring)
    {
        lock (_lock)
        {
            Reset(Take(ring));
        }
    }

    /// <summary>Empties all rings and puts what was taken out of them, now and before, into a set.</summary>
    /// <param name="dirty">The set.</param>
    internal void MoveTo(PageBitmap dirty)
    {
        lock (_lock)
        {
            int taken = 0;
            foreach (DirtyRing ring in _rings)
            {
                taken += Take(ring);
            }

            Reset(taken);
            for (ulong page = 0; page < dirty.PageCount; page += PageBitmap.PagesPerWord)
            {
                if (_untold.Word(page) is not 0 and var pages)
                {
                    _ = dirty.AddWord(page, _untold.TakeWord(page, pages));
                }
            }
        }
    }

    /// <summary>Empties all rings and forgets what was in them.</summary>
    internal void Forget() => MoveTo(new PageBitmap(_untold.PageCount));

    /// <returns>How many entries it had.</returns>
    private int Take(DirtyRing ring)
    {
        int taken = 0;
        while (ring.TryTake(out uint slot, out ulong page))
        {
            _ = _untold.Add(_firstPages[slot] + page);
            taken++;
        }

        return taken;
    }

    private void Reset(int entries)
    {
        while (entries > 0)
        {
            entries -= _virtualMachine.ResetDirtyRings();
        }
    }
}
