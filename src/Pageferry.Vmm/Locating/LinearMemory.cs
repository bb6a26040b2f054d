using System.Runtime.InteropServices;
using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>A vCPU's linear address space, which lists every page that is touched through it.</summary>
internal ref struct LinearMemory
{
    private const ulong PageMask = Page.Size - 1;

    private readonly GuestReader _read;
    private readonly ref readonly VcpuContext _context;
    private FaultCandidates _candidates;

    // The last walk: neighbouring accesses go to the same page.
    private ulong _lastPage = ulong.MaxValue;
    private ulong _lastGpa;
    private FaultAccess _lastAccess;

    internal LinearMemory(GuestReader read, ref readonly VcpuContext context, Span<FaultCandidate> candidates)
    {
        _read = read;
        _context = ref context;
        _candidates = new FaultCandidates(candidates);
        Mode = ProcessorMode.Of(context);
    }

    /// <summary>The vCPU's registers.</summary>
    internal readonly ref readonly VcpuContext Context => ref _context;

    /// <summary>The vCPU's mode.</summary>
    internal ProcessorMode Mode { get; }

    /// <summary>How many pages are listed.</summary>
    internal readonly int Count => _candidates.Count;

    /// <summary>Lists the pages of a range.</summary>
    /// <param name="address">The first linear address.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="access">What is done there.</param>
    internal void Touch(ulong address, ulong length, FaultAccess access)
    {
        for (ulong done = 0; done < length;)
        {
            ulong at = address + done;
            _ = TryTranslate(at, access, out _);
            done += Page.Size - (at & PageMask);
        }
    }

    /// <summary>Lists the pages of a range, and reads it.</summary>
    /// <param name="address">The first linear address.</param>
    /// <param name="destination">Where to copy to; its length says how much.</param>
    /// <param name="access">What is done there.</param>
    /// <returns>False if a page of it can't be read; the pages before it, and it, are listed.</returns>
    internal bool TryRead(ulong address, scoped Span<byte> destination, FaultAccess access = FaultAccess.Read)
    {
        while (!destination.IsEmpty)
        {
            int length = (int)Math.Min((ulong)destination.Length, Page.Size - (address & PageMask));
            if (!TryTranslate(address, access, out ulong gpa) || !_read(gpa, destination[..length]))
            {
                return false;
            }

            address += (ulong)length;
            destination = destination[length..];
        }

        return true;
    }

    /// <summary>Lists the pages of a number, and reads it.</summary>
    /// <param name="address">Its linear address.</param>
    /// <param name="bytes">Its size: 1 to 8.</param>
    /// <param name="value">The number.</param>
    /// <returns>False if a page of it can't be read.</returns>
    internal bool TryReadNumber(ulong address, int bytes, out ulong value)
    {
        value = 0;
        return TryRead(address, MemoryMarshal.AsBytes(new Span<ulong>(ref value))[..bytes]);
    }

    /// <summary>Lists a page that the processor finds by its physical address.</summary>
    internal void TouchPhysical(ulong gpa, FaultAccess access) => _candidates.Add(gpa, access);

    private bool TryTranslate(ulong address, FaultAccess access, out ulong gpa)
    {
        gpa = 0;
        if (!Mode.IsLong)
        {
            address &= uint.MaxValue;
        }
        else if (!IsCanonical(address))
        {
            return false;
        }

        ulong page = address & ~PageMask;
        if (page != _lastPage || (access & ~_lastAccess) != FaultAccess.None)
        {
            if (!PageWalker.TryWalk(_read, _context.SystemRegisters, page, access, ref _candidates, out _lastGpa))
            {
                _lastPage = ulong.MaxValue;
                return false;
            }

            (_lastPage, _lastAccess) = (page, access);
        }

        gpa = _lastGpa | (address & PageMask);
        return true;
    }

    /// <summary>An access to any other address raises an exception instead.</summary>
    private readonly bool IsCanonical(ulong address)
    {
        const ulong Cr4FiveLevels = 1 << 12;
        int unused = (_context.SystemRegisters.Cr4 & Cr4FiveLevels) != 0 ? 64 - 57 : 64 - 48;
        return (ulong)((long)(address << unused) >> unused) == address;
    }
}
