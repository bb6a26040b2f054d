using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>
/// A range of this process's address space made by mmap(2), unmapped when disposed.
/// </summary>
/// <remarks>
/// <see cref="Span"/> is for memory that can't be missing. Memory registered with a <c>Userfaultfd</c> is
/// touched through <see cref="CopyOut"/> and <see cref="CopyIn"/> only: they copy in native code, where a thread that waits
/// for its page doesn't hold up a garbage collection.
/// </remarks>
// SAFETY: Pointer, which checks the range, makes all pointers, and none leaves this class; what is done with them says so where it is done.
public sealed unsafe class MappedRegion : IDisposable
{
    /// <summary>Longer regions begin at a multiple of this, so that the kernel can make huge pages of them.</summary>
    private const ulong HugePage = 2 << 20;

    /// <summary>No less than <c>pthread_mutex_t</c> takes anywhere.</summary>
    private const ulong LockBytes = 64;

    private nint _address;

    private MappedRegion(nint address, ulong length)
    {
        _address = address;
        Length = length;
    }

    /// <summary>The first byte's address, as the kernel's interfaces take it.</summary>
    /// <exception cref="ObjectDisposedException">The region is unmapped.</exception>
    public ulong Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(_address == 0, this);
            return (ulong)_address;
        }
    }

    /// <summary>The length in bytes.</summary>
    public ulong Length { get; }

    /// <summary>Maps private anonymous memory, zero until written and not populated. Huge pages are reserved, so that none lacks later.</summary>
    /// <param name="length">Bytes; the kernel rounds up to whole pages.</param>
    /// <param name="hugePages">Use 2 MiB pages from the reserved pool (<c>MAP_HUGETLB</c>).</param>
    /// <returns>The region, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ENOMEM: no address space, or not as many huge pages free.</exception>
    public static MappedRegion MapAnonymous(ulong length, bool hugePages = false)
    {
        // A huge page that was not reserved and lacks at the first touch is SIGBUS.
        int flags = Interop.MAP_PRIVATE | Interop.MAP_ANONYMOUS | (hugePages ? Interop.MAP_HUGETLB | Interop.MAP_HUGE_2MB : Interop.MAP_NORESERVE);
        nint address = Map(length, Interop.PROT_READ | Interop.PROT_WRITE, flags, -1, 0);
        return address != Interop.MAP_FAILED
            ? new MappedRegion(address, length)
            : throw LinuxException.FromLastError($"map {length} bytes of anonymous memory", hugePages ? MemoryFile.HugePageAdvice : null);
    }

    /// <summary>Maps a range of a file so that every mapping of it shares the content (<c>MAP_SHARED</c>).</summary>
    /// <param name="file">The file: a memfd, or any descriptor that can be mapped, such as a vCPU's.</param>
    /// <param name="offset">Where in the file the range starts, in bytes; a page multiple.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="protection">What may be done with the mapping.</param>
    /// <returns>The region, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ENOMEM: no address space, or not as many huge pages free as the file needs. Else the file can't be mapped so.</exception>
    public static MappedRegion MapShared(FileDescriptor file, ulong offset, ulong length, MemoryProtection protection = MemoryProtection.ReadWrite) =>
        MapFile(file, offset, length, (int)protection, Interop.MAP_SHARED);

    /// <summary>Maps a range of a file; what is written is this mapping's alone (<c>MAP_PRIVATE</c>).</summary>
    /// <param name="file">The file.</param>
    /// <param name="offset">Where in the file the range starts, in bytes; a page multiple.</param>
    /// <param name="length">Bytes.</param>
    /// <returns>The region, which the caller disposes.</returns>
    /// <exception cref="LinuxException">As for <see cref="MapShared"/>.</exception>
    internal static MappedRegion MapPrivate(FileDescriptor file, ulong offset, ulong length) =>
        MapFile(file, offset, length, Interop.PROT_READ | Interop.PROT_WRITE, Interop.MAP_PRIVATE);

    /// <summary>The bytes of a range that can't be missing. Never for memory registered with a userfaultfd.</summary>
    /// <param name="offset">Bytes from the region's start.</param>
    /// <param name="length">Bytes.</param>
    /// <returns>The range, valid until the region is disposed.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the region.</exception>
    public Span<byte> Span(ulong offset, int length)
    {
        byte* first = Pointer(offset, (ulong)length);

        // SAFETY: Pointer checked that the range lies within the mapping, which lives until Dispose.
        unsafe
        {
            return new Span<byte>(first, length);
        }
    }

    /// <summary>Copies from the region in native code, so that a page that is missing may be waited for.</summary>
    /// <param name="offset">Bytes from the region's start.</param>
    /// <param name="destination">Where to copy to; its length says how much.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the region.</exception>
    public void CopyOut(ulong offset, Span<byte> destination)
    {
        byte* first = Pointer(offset, (ulong)destination.Length);

        // SAFETY: both ranges are checked or pinned; memcpy runs in preemptive mode, so the wait for a page blocks no GC.
        unsafe
        {
            fixed (byte* to = destination)
            {
                _ = Interop.Memcpy(to, first, (nuint)destination.Length);
            }
        }
    }

    /// <summary>Copies into the region in native code, so that a page that is missing may be waited for.</summary>
    /// <param name="offset">Bytes from the region's start.</param>
    /// <param name="source">What to copy.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the region.</exception>
    public void CopyIn(ulong offset, ReadOnlySpan<byte> source)
    {
        byte* first = Pointer(offset, (ulong)source.Length);

        // SAFETY: as in CopyOut.
        unsafe
        {
            fixed (byte* from = source)
            {
                _ = Interop.Memcpy(first, from, (nuint)source.Length);
            }
        }
    }

    /// <summary>Takes a lock that lies in the region (pthread_mutex_lock(3)), in native code. All zeros is one that nobody has.</summary>
    /// <param name="offset">Bytes from the region's start; a multiple of 8.</param>
    internal void Lock(ulong offset) => _ = Interop.PthreadMutexLock((nint)Pointer(offset, LockBytes));

    /// <summary>Gives the lock back, on the thread that took it.</summary>
    /// <param name="offset">Bytes from the region's start.</param>
    internal void Unlock(ulong offset) => _ = Interop.PthreadMutexUnlock((nint)Pointer(offset, LockBytes));

    /// <summary>
    /// Copies from the region by the kernel (process_vm_readv(2)): a page that can't be touched ends the copy and raises no signal.
    /// </summary>
    /// <param name="offset">Bytes from the region's start.</param>
    /// <param name="destination">Where to copy to; its length says how much.</param>
    /// <returns>How many bytes were copied: fewer than asked for where a page is missing, with <c>UFFD_FEATURE_SIGBUS</c>, or protected.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the region.</exception>
    /// <exception cref="LinuxException">The kernel refuses such copies altogether.</exception>
    public int TryCopyOut(ulong offset, Span<byte> destination)
    {
        byte* first = Pointer(offset, (ulong)destination.Length);

        // SAFETY: the range was checked, the span is pinned; the kernel copies and checks every page itself.
        unsafe
        {
            fixed (byte* to = destination)
            {
                var local = new Interop.iovec { iov_base = to, iov_len = (nuint)destination.Length };
                var remote = new Interop.iovec { iov_base = first, iov_len = (nuint)destination.Length };
                return Copied(Interop.ProcessVmReadv(Environment.ProcessId, &local, 1, &remote, 1, 0), first, destination.Length);
            }
        }
    }

    /// <summary>Copies into the region by the kernel (process_vm_writev(2)); see <see cref="TryCopyOut"/>.</summary>
    /// <param name="offset">Bytes from the region's start.</param>
    /// <param name="source">What to copy.</param>
    /// <returns>How many bytes were copied: fewer than asked for where a page can't be touched.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the region.</exception>
    /// <exception cref="LinuxException">The kernel refuses such copies altogether.</exception>
    public int TryCopyIn(ulong offset, ReadOnlySpan<byte> source)
    {
        byte* first = Pointer(offset, (ulong)source.Length);

        // SAFETY: as in TryCopyOut.
        unsafe
        {
            fixed (byte* from = source)
            {
                var local = new Interop.iovec { iov_base = from, iov_len = (nuint)source.Length };
                var remote = new Interop.iovec { iov_base = first, iov_len = (nuint)source.Length };
                return Copied(Interop.ProcessVmWritev(Environment.ProcessId, &local, 1, &remote, 1, 0), first, source.Length);
            }
        }
    }

    /// <summary>madvise(2) over a range.</summary>
    /// <param name="offset">Bytes from the region's start; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="advice">What the kernel is to do.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Advise(ulong offset, ulong length, MemoryAdvice advice)
    {
        if (Interop.Madvise((nint)Pointer(offset, length), (nuint)length, (int)advice) != 0)
        {
            throw LinuxException.FromLastError($"madvise {advice} on {length} bytes at 0x{Address + offset:x}");
        }
    }

    /// <summary>Makes one huge page of 2 MiB of small ones (<c>MADV_COLLAPSE</c>). Content stays as it is; small pages that there were none of become zeros.</summary>
    /// <remarks>
    /// It takes a free huge page of the host and, for some milliseconds, a CPU; who touches the range meanwhile waits. Memory that is registered with a userfaultfd
    /// must not be collapsed: all of the range becomes accessible.
    /// </remarks>
    /// <param name="offset">Bytes from the region's start; the range begins at a multiple of 2 MiB in memory and, of a file, there too.</param>
    /// <returns>
    /// False where it stays as it is. ENOMEM: no huge page is free. EAGAIN, EBUSY: somebody pins or changes a page. EINVAL: it has no page at all, is of a kind
    /// that has no huge pages, or the kernel is older than Linux 6.1.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">2 MiB from there on are not within the region.</exception>
    public bool TryCollapse(ulong offset) => Interop.Madvise((nint)Pointer(offset, HugePage), (nuint)HugePage, (int)MemoryAdvice.Collapse) == 0;

    /// <summary>Gives a range the pages that it lacks, for writing (<c>MADV_POPULATE_WRITE</c>): a touch of them can't fail then.</summary>
    /// <param name="offset">Bytes from the region's start; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <returns>False where there are none to give: the first touch of a huge page that lacks, where none is free, is SIGBUS.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the region.</exception>
    public bool TryPopulate(ulong offset, ulong length) => Interop.Madvise((nint)Pointer(offset, length), (nuint)length, (int)MemoryAdvice.PopulateWrite) == 0;

    /// <summary>mprotect(2) over a range.</summary>
    /// <param name="offset">Bytes from the region's start; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="protection">What may be done with it from now on.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Protect(ulong offset, ulong length, MemoryProtection protection)
    {
        if (Interop.Mprotect((nint)Pointer(offset, length), (nuint)length, (int)protection) != 0)
        {
            throw LinuxException.FromLastError($"mprotect {protection} on {length} bytes at 0x{Address + offset:x}");
        }
    }

    /// <summary>Moves the region to where another one is, which is unmapped (mremap(2)).</summary>
    /// <param name="place">The other region, no shorter; it is disposed.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    internal void MoveTo(MappedRegion place)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(place.Length, Length, nameof(place));
        nint address = Interop.Mremap((nint)Address, (nuint)Length, (nuint)Length, Interop.MREMAP_MAYMOVE | Interop.MREMAP_FIXED, (nint)place.Address);
        if (address == Interop.MAP_FAILED)
        {
            throw LinuxException.FromLastError($"move {Length} bytes from 0x{Address:x} to 0x{place.Address:x}");
        }

        Unmap(address + (nint)Length, address + (nint)place.Length);
        place._address = 0;
        _address = address;
    }

    /// <summary>Unmaps the region.</summary>
    public void Dispose()
    {
        nint address = Interlocked.Exchange(ref _address, 0);
        if (address != 0)
        {
            _ = Interop.Munmap(address, (nuint)Length);
        }
    }

    private static MappedRegion MapFile(FileDescriptor file, ulong offset, ulong length, int protection, int flags)
    {
        nint address = Map(length, protection, flags, file.Number, checked((long)offset));
        return address != Interop.MAP_FAILED
            ? new MappedRegion(address, length)
            : throw LinuxException.FromLastError($"map {length} bytes at offset {offset} of file descriptor {file.Number}");
    }

    private static nint Map(ulong length, int protection, int flags, int file, long offset)
    {
        var bytes = checked((nuint)length);
        if (length < HugePage)
        {
            return Interop.Mmap(0, bytes, protection, flags, file, offset);
        }

        // The kernel aligns by itself only where it is going to use huge pages. Of a range that is longer, the part that begins right is used.
        nuint reserved = checked(bytes + (nuint)HugePage);
        nint begin = Interop.Mmap(0, reserved, Interop.PROT_NONE, Interop.MAP_PRIVATE | Interop.MAP_ANONYMOUS | Interop.MAP_NORESERVE, -1, 0);
        if (begin == Interop.MAP_FAILED)
        {
            return begin;
        }

        nint aligned = (nint)(((ulong)begin + HugePage - 1) & ~(HugePage - 1));
        nint address = Interop.Mmap(aligned, bytes, protection, flags | Interop.MAP_FIXED, file, offset);
        int error = Marshal.GetLastPInvokeError();
        nint used = address == Interop.MAP_FAILED ? begin : aligned;
        nuint wholePages = (bytes + (nuint)Environment.SystemPageSize - 1) & ~((nuint)Environment.SystemPageSize - 1);
        nint end = address == Interop.MAP_FAILED ? begin : aligned + (nint)wholePages;
        Unmap(begin, used);
        Unmap(end, begin + (nint)reserved);
        Marshal.SetLastPInvokeError(error);
        return address;
    }

    private static void Unmap(nint begin, nint end)
    {
        if (begin < end)
        {
            _ = Interop.Munmap(begin, (nuint)(end - begin));
        }
    }

    private static int Copied(nint result, byte* address, int length) => result >= 0
        ? (int)result
        : Marshal.GetLastPInvokeError() == (int)Errno.EFAULT
            ? 0
            : throw LinuxException.FromLastError($"copy {length} bytes at 0x{(ulong)address:x} within this process");

    private byte* Pointer(ulong offset, ulong length)
    {
        if (offset > Length || length > Length - offset)
        {
            throw new ArgumentOutOfRangeException(nameof(offset), $"{length} bytes at {offset} are not within a region of {Length} bytes.");
        }

        return (byte*)Address + offset;
    }
}
