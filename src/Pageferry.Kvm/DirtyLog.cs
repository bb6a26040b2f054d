using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>
/// The pages of one memory slot that were written, by the guest or by KVM for it: a bitmap in native memory that <see cref="Read"/> fills.
/// </summary>
/// <remarks>
/// Made by <see cref="VirtualMachine.CreateDirtyLog"/>. Where the virtual machine has a manual dirty log
/// (<see cref="VirtualMachine.TryEnableManualDirtyLog"/>), a page stays logged until <see cref="Clear()"/>; elsewhere reading clears. In both cases a page's
/// content is read after it was cleared: a write in between is then logged for the next time. Writes by this process itself are not logged. One thread
/// uses the object at a time; several may clear at once, each its own range.
/// </remarks>
public sealed class DirtyLog : IDisposable
{
    private const int WordBits = 64;

    private readonly VirtualMachine _virtualMachine;
    private readonly MappedRegion _bitmap;
    private readonly int _words;

    internal DirtyLog(VirtualMachine virtualMachine, MemorySlot slot)
    {
        _virtualMachine = virtualMachine;
        MemorySlot = slot;
        _words = checked((int)((PageCount + WordBits - 1) / WordBits));
        ulong bytes = (ulong)_words * sizeof(ulong);
        _bitmap = MappedRegion.MapAnonymous((bytes + MemorySlot.PageSize - 1) / MemorySlot.PageSize * MemorySlot.PageSize);
    }

    /// <summary>The slot's number.</summary>
    public uint Slot => MemorySlot.Number;

    /// <summary>The slot's first guest frame number.</summary>
    public ulong FirstGfn => MemorySlot.Gpa / MemorySlot.PageSize;

    /// <summary>The slot's pages.</summary>
    public ulong PageCount => MemorySlot.Length / MemorySlot.PageSize;

    /// <summary>How many pages the last <see cref="Read"/> found written.</summary>
    public ulong DirtyCount
    {
        get
        {
            ulong count = 0;
            foreach (ulong word in Words)
            {
                count += ulong.PopCount(word);
            }

            return count;
        }
    }

    internal MemorySlot MemorySlot { get; }

    private ReadOnlySpan<ulong> Words => MemoryMarshal.Cast<byte, ulong>(_bitmap.Span(0, _words * sizeof(ulong)));

    /// <summary>
    /// Fetches the pages written since they were cleared (<c>KVM_GET_DIRTY_LOG</c>), in place of what was fetched before; clears them too unless the log is
    /// manual. Allocates nothing.
    /// </summary>
    /// <exception cref="InvalidOperationException">The slot was deleted or is another range now.</exception>
    /// <exception cref="LinuxException">ENOENT: the slot does not log.</exception>
    public void Read() => _virtualMachine.ReadDirtyLog(this, _bitmap.Address);

    /// <summary>
    /// Clears the pages that the last <see cref="Read"/> found and that were not cleared since, so that a write from now on is logged again
    /// (<c>KVM_CLEAR_DIRTY_LOG</c>). Does nothing where reading has cleared them.
    /// </summary>
    /// <exception cref="InvalidOperationException">The slot was deleted or is another range now.</exception>
    /// <exception cref="LinuxException">ENOENT: the slot does not log.</exception>
    public void Clear() => Clear(FirstGfn, PageCount);

    /// <summary>
    /// Clears those pages of a range that the last <see cref="Read"/> found (<c>KVM_CLEAR_DIRTY_LOG</c>), and takes them out of what it found: what is
    /// written now is not cleared by clearing the range twice. Clearing a piece just before it is sent keeps pages from being sent twice, and the kernel's
    /// lock short. Does nothing where reading has cleared them.
    /// </summary>
    /// <param name="gfn">The first guest frame number; a multiple of 64 pages from the slot's first.</param>
    /// <param name="pages">How many; a multiple of 64, or all to the slot's end.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is not such a part of the slot.</exception>
    /// <exception cref="InvalidOperationException">The slot was deleted or is another range now.</exception>
    /// <exception cref="LinuxException">ENOENT: the slot does not log.</exception>
    public void Clear(ulong gfn, ulong pages)
    {
        ulong first = gfn - FirstGfn;
        bool within = gfn >= FirstGfn && first < PageCount && pages > 0 && pages <= PageCount - first;
        if (!within || first % WordBits != 0 || (pages % WordBits != 0 && first + pages != PageCount) || pages > uint.MaxValue)
        {
            throw new ArgumentOutOfRangeException(
                nameof(gfn), $"{pages} pages at GFN 0x{gfn:x} are no run of {WordBits}-page pieces of slot {Slot}, which has {PageCount} pages at GFN 0x{FirstGfn:x}.");
        }

        if (_virtualMachine.HasManualDirtyLog)
        {
            ulong word = first / WordBits;
            _virtualMachine.ClearDirtyLog(this, first, (uint)pages, _bitmap.Address + (word * sizeof(ulong)));
            _bitmap.Span(word * sizeof(ulong), (int)((pages + WordBits - 1) / WordBits) * sizeof(ulong)).Clear();
        }
    }

    /// <summary>Whether the last <see cref="Read"/> found a page written.</summary>
    /// <param name="gfn">The guest frame number.</param>
    /// <returns>Whether it was.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The page is not in the slot.</exception>
    public bool IsDirty(ulong gfn)
    {
        if (gfn < FirstGfn || gfn - FirstGfn >= PageCount)
        {
            throw new ArgumentOutOfRangeException(nameof(gfn), $"GFN 0x{gfn:x} is not in slot {Slot}, which has {PageCount} pages at GFN 0x{FirstGfn:x}.");
        }

        ulong page = gfn - FirstGfn;
        return ((Words[(int)(page / WordBits)] >> (int)(page % WordBits)) & 1) != 0;
    }

    /// <summary>Enumerates the guest frame numbers that the last <see cref="Read"/> found written, ascending. Allocates nothing.</summary>
    /// <returns>What <c>foreach</c> uses; not valid after the next read.</returns>
    public Enumerator GetEnumerator() => new(Words, FirstGfn);

    /// <summary>Frees the bitmap; the slot goes on logging.</summary>
    public void Dispose() => _bitmap.Dispose();

    /// <summary>Goes over the set bits of a dirty log.</summary>
    public ref struct Enumerator
    {
        private readonly ReadOnlySpan<ulong> _bitmap;
        private readonly ulong _firstGfn;
        private ulong _rest;
        private int _word;

        internal Enumerator(ReadOnlySpan<ulong> bitmap, ulong firstGfn)
        {
            _bitmap = bitmap;
            _firstGfn = firstGfn;
            _word = -1;
        }

        /// <summary>The guest frame number of a page that was written.</summary>
        public ulong Current { get; private set; }

        /// <summary>Goes to the next.</summary>
        /// <returns>Whether there is one.</returns>
        public bool MoveNext()
        {
            while (_rest == 0)
            {
                if (++_word >= _bitmap.Length)
                {
                    return false;
                }

                _rest = _bitmap[_word];
            }

            Current = _firstGfn + ((ulong)_word * WordBits) + ulong.TrailingZeroCount(_rest);
            _rest &= _rest - 1;
            return true;
        }
    }
}
