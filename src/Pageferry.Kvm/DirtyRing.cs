using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>The pages that one vCPU wrote, or KVM for it, in slots that log: a ring in memory that the kernel fills (<c>struct kvm_dirty_gfn</c>).</summary>
/// <remarks>
/// <para>
/// A page that was told is not told again before its entry was taken and <see cref="VirtualMachine.ResetDirtyRings"/> has reset it. Its content is read after
/// that: a write in between would not be told. A processor that collects what it writes (Intel's page modification logging) brings it into the ring when the
/// vCPU next leaves the guest, so all is told of a vCPU that does not run.
/// </para>
/// <para>When the ring is nearly full the vCPU leaves by <see cref="VcpuExitKind.DirtyRingFull"/>. One thread at a time takes entries.</para>
/// </remarks>
public sealed class DirtyRing : IDisposable
{
    private readonly MappedRegion _ring;
    private readonly int _entries;
    private int _next;

    internal DirtyRing(FileDescriptor vcpu, int entries)
    {
        _entries = entries;
        _ring = MappedRegion.MapShared(vcpu, Interop.KVM_DIRTY_LOG_PAGE_OFFSET * MemorySlot.PageSize, (ulong)entries * Interop.DirtyRingEntryBytes);
    }

    private Span<Interop.kvm_dirty_gfn> Entries => MemoryMarshal.Cast<byte, Interop.kvm_dirty_gfn>(_ring.Span(0, _entries * Interop.DirtyRingEntryBytes));

    /// <summary>Takes the next entry. Allocates nothing.</summary>
    /// <param name="slot">The slot's number.</param>
    /// <param name="page">The page's number within the slot.</param>
    /// <returns>Whether there was one.</returns>
    public bool TryTake(out uint slot, out ulong page)
    {
        // The kernel writes the flags last, and takes nothing back before it finds them changed.
        ref Interop.kvm_dirty_gfn entry = ref Entries[_next];
        bool isDirty = (Volatile.Read(ref entry.flags) & Interop.KVM_DIRTY_GFN_F_MASK) == Interop.KVM_DIRTY_GFN_F_DIRTY;
        slot = entry.slot;
        page = entry.offset;
        if (isDirty)
        {
            Volatile.Write(ref entry.flags, Interop.KVM_DIRTY_GFN_F_RESET);
            _next = (_next + 1) & (_entries - 1);
        }

        return isDirty;
    }

    /// <summary>Unmaps the ring; the vCPU goes on filling it.</summary>
    public void Dispose() => _ring.Dispose();
}
