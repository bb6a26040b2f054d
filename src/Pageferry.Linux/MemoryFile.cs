using System.Globalization;
using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>Memory with a file descriptor (memfd_create(2)), so that it can be mapped twice and handed to another process.</summary>
public sealed class MemoryFile : IDisposable
{
    internal const string HugePageAdvice = "Reserve 2 MiB pages first: echo N > /proc/sys/vm/nr_hugepages.";

    private const int FixedLength = Interop.F_SEAL_SHRINK | Interop.F_SEAL_GROW;

    private const ulong HugePage = 2 << 20;

    private readonly bool _hasHugePages;

    private MemoryFile(FileDescriptor descriptor, string name, ulong length, bool hasHugePages = false)
    {
        Descriptor = descriptor;
        Name = name;
        Length = length;
        _hasHugePages = hasHugePages;
    }

    /// <summary>The memfd.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>The name shown in /proc/PID/maps.</summary>
    public string Name { get; }

    /// <summary>The length in bytes.</summary>
    public ulong Length { get; }

    /// <summary>Whether nobody can change the length (<c>F_GET_SEALS</c>); false of what is no memory file.</summary>
    public bool IsFixed => Interop.Fcntl(Descriptor.Number, Interop.F_GET_SEALS, 0) is >= 0 and int seals && (seals & FixedLength) == FixedLength;

    /// <summary>Makes a memory file that is one hole.</summary>
    /// <param name="name">The name shown in /proc/PID/maps.</param>
    /// <param name="length">Bytes; a multiple of the page size used.</param>
    /// <param name="hugePages">Use 2 MiB pages of hugetlbfs (<c>MFD_HUGETLB | MFD_HUGE_2MB</c>).</param>
    /// <returns>The file, which the caller disposes.</returns>
    /// <exception cref="LinuxException">No memory, or no such huge pages.</exception>
    public static MemoryFile Create(string name, ulong length, bool hugePages = false)
    {
        uint flags = Interop.MFD_CLOEXEC | (hugePages ? Interop.MFD_HUGETLB | Interop.MFD_HUGE_2MB : 0);
        return Create(name, length, flags, hugePages);
    }

    /// <summary>Makes a memory file whose length nobody can change, whoever has it (<c>F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL</c>).</summary>
    /// <param name="name">The name shown in /proc/PID/maps.</param>
    /// <param name="length">Bytes.</param>
    /// <returns>The file, which the caller disposes.</returns>
    /// <exception cref="LinuxException">No memory.</exception>
    public static MemoryFile CreateFixed(string name, ulong length)
    {
        MemoryFile file = Create(name, length, Interop.MFD_CLOEXEC | Interop.MFD_ALLOW_SEALING, hugePages: false);
        if (Interop.Fcntl(file.Descriptor.Number, Interop.F_ADD_SEALS, FixedLength | Interop.F_SEAL_SEAL) == 0)
        {
            return file;
        }

        LinuxException failure = LinuxException.FromLastError($"seal memfd {name}");
        file.Dispose();
        throw failure;
    }

    /// <summary>Takes over a memory file that another process handed us; its length is asked of the kernel.</summary>
    /// <param name="descriptor">The memfd; owned by the result.</param>
    /// <param name="name">What errors call it.</param>
    /// <returns>The file, which the caller disposes.</returns>
    /// <exception cref="LinuxException">The descriptor is not a file that has a length.</exception>
    public static MemoryFile FromDescriptor(FileDescriptor descriptor, string name)
    {
        long length = Interop.Lseek(descriptor.Number, 0, Interop.SEEK_END);
        return length >= 0 ? new MemoryFile(descriptor, name, (ulong)length) : throw LinuxException.FromLastError($"find the length of memfd {name}");
    }

    /// <summary>Takes over a file of memory that can't be asked for its length: KVM's guest_memfd.</summary>
    /// <param name="descriptor">The file; owned by the result.</param>
    /// <param name="name">What errors call it.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <returns>The file, which the caller disposes.</returns>
    public static MemoryFile FromDescriptor(FileDescriptor descriptor, string name, ulong length) => new(descriptor, name, length);

    /// <summary>Maps its beginning, so that every mapping of it shares the content (<c>MAP_SHARED</c>).</summary>
    /// <param name="length">Bytes; a multiple of the file's page size.</param>
    /// <returns>The mapping, which the caller disposes; it needs the file no more.</returns>
    /// <exception cref="LinuxException">ENOMEM: no address space, or not as many huge pages free.</exception>
    public MappedRegion Map(ulong length)
    {
        try
        {
            return MappedRegion.MapShared(Descriptor, 0, length);
        }
        catch (LinuxException refusal) when (_hasHugePages && refusal.Errno == Errno.ENOMEM)
        {
            throw new LinuxException($"map memfd {Name}, which takes {length / HugePage} pages of 2 MiB", Errno.ENOMEM, HugePageAdvice);
        }
    }

    /// <summary>Drops the content of a range from the file and every mapping of it (<c>FALLOC_FL_PUNCH_HOLE</c>).</summary>
    /// <param name="offset">Bytes; a multiple of the file's page size.</param>
    /// <param name="length">Bytes; a multiple of the file's page size.</param>
    /// <exception cref="LinuxException">The range or the file does not allow it.</exception>
    public void PunchHole(ulong offset, ulong length)
    {
        int mode = Interop.FALLOC_FL_PUNCH_HOLE | Interop.FALLOC_FL_KEEP_SIZE;
        if (Interop.Fallocate(Descriptor.Number, mode, checked((long)offset), checked((long)length)) != 0)
        {
            throw LinuxException.FromLastError($"punch a hole of {length} bytes at {offset} into memfd {Name}");
        }
    }

    /// <summary>Makes the file shorter (ftruncate(2)): pages of its mappings beyond the end are SIGBUS.</summary>
    /// <param name="length">Bytes; a multiple of the file's page size.</param>
    /// <exception cref="LinuxException">The file does not allow it.</exception>
    internal void Shorten(ulong length)
    {
        if (Interop.Ftruncate(Descriptor.Number, checked((long)length)) != 0)
        {
            throw LinuxException.FromLastError($"set memfd {Name} to {length} bytes");
        }
    }

    /// <summary>Copies from the file (pread(2)), which maps nothing, populates nothing, and waits for no userfault.</summary>
    /// <param name="offset">Bytes from the start.</param>
    /// <param name="destination">Where to copy to; its length says how much.</param>
    /// <exception cref="LinuxException">The file can't be read: a guest_memfd never can.</exception>
    /// <exception cref="EndOfStreamException">The file ends before.</exception>
    public void Read(ulong offset, Span<byte> destination)
    {
        // SAFETY: the span is pinned, and no more than its length is written.
        unsafe
        {
            fixed (byte* to = destination)
            {
                Transfer(offset, to, destination.Length, isWrite: false);
            }
        }
    }

    /// <summary>Copies into the file (pwrite(2)), which maps nothing.</summary>
    /// <param name="offset">Bytes from the start.</param>
    /// <param name="source">What to write.</param>
    /// <exception cref="ArgumentOutOfRangeException">Not all of it lies within the file.</exception>
    /// <exception cref="LinuxException">The file can't be written: one of huge pages, or a guest_memfd, never can.</exception>
    public void Write(ulong offset, ReadOnlySpan<byte> source)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((ulong)source.Length, Length - offset, nameof(source));

        // SAFETY: the span is pinned, and no more than its length is read.
        unsafe
        {
            fixed (byte* from = source)
            {
                Transfer(offset, from, source.Length, isWrite: true);
            }
        }
    }

    /// <summary>The next byte at or after an offset that has content (<c>SEEK_DATA</c>).</summary>
    /// <remarks>A file of huge pages can't tell: the kernel answers as if all of it had content.</remarks>
    /// <param name="offset">Bytes from the start.</param>
    /// <returns>Its offset, or <see cref="Length"/> when only a hole follows.</returns>
    /// <exception cref="LinuxException">The file can't tell.</exception>
    public ulong NextData(ulong offset) => Seek(offset, Interop.SEEK_DATA);

    /// <summary>The next byte at or after an offset that has no content (<c>SEEK_HOLE</c>).</summary>
    /// <remarks>A file of huge pages can't tell: the kernel answers as if all of it had content.</remarks>
    /// <param name="offset">Bytes from the start.</param>
    /// <returns>Its offset, or <see cref="Length"/> when there is no hole before the end.</returns>
    /// <exception cref="LinuxException">The file can't tell.</exception>
    public ulong NextHole(ulong offset) => Seek(offset, Interop.SEEK_HOLE);

    /// <summary>
    /// Opens the file once more, and locks it for this opening alone (flock(2)). The lock goes where the descriptor is sent, and is gone when no process has it open any more,
    /// by whatever means.
    /// </summary>
    /// <returns>The descriptor, which the caller disposes; null if another opening has the lock.</returns>
    /// <exception cref="LinuxException">There is no /proc, or there are too many open files (EMFILE).</exception>
    public FileDescriptor? TryOpenLocked()
    {
        int fd = Interop.Open(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{Descriptor.Number}"), Interop.O_RDWR | Interop.O_CLOEXEC);
        if (fd < 0)
        {
            throw LinuxException.FromLastError($"open memfd {Name} once more");
        }

        var opened = new FileDescriptor(fd);
        if (Interop.Flock(fd, Interop.LOCK_EX | Interop.LOCK_NB) == 0)
        {
            return opened;
        }

        LinuxException failure = LinuxException.FromLastError($"lock memfd {Name}");
        opened.Dispose();
        return failure.Errno == Errno.EAGAIN ? null : throw failure;
    }

    /// <summary>Closes the descriptor; mappings keep the content alive.</summary>
    public void Dispose() => Descriptor.Dispose();

    // SAFETY: who calls has pinned as many bytes as it says, for as long as this runs.
    private unsafe void Transfer(ulong offset, byte* memory, int length, bool isWrite)
    {
        for (int done = 0; done < length;)
        {
            long at = checked((long)offset + done);
            nuint left = (nuint)(length - done);
            nint bytes = isWrite
                ? Interop.Pwrite(Descriptor.Number, memory + done, left, at)
                : Interop.Pread(Descriptor.Number, memory + done, left, at);
            if (bytes == 0)
            {
                throw new EndOfStreamException($"memfd {Name} ends at {at}, {left} bytes before what is to be {(isWrite ? "written" : "read")}.");
            }

            if (bytes < 0 && Marshal.GetLastPInvokeError() != (int)Errno.EINTR)
            {
                throw LinuxException.FromLastError($"{(isWrite ? "write" : "read")} {left} bytes at {at} of memfd {Name}");
            }

            done += (int)Math.Max(bytes, 0);
        }
    }

    private static MemoryFile Create(string name, ulong length, uint flags, bool hugePages)
    {
        int fd = Interop.MemfdCreate(name, flags);
        if (fd < 0)
        {
            throw LinuxException.FromLastError($"create memfd {name}", hugePages ? HugePageAdvice : null);
        }

        var descriptor = new FileDescriptor(fd);
        if (Interop.Ftruncate(fd, checked((long)length)) != 0)
        {
            LinuxException failure = LinuxException.FromLastError($"set memfd {name} to {length} bytes");
            descriptor.Dispose();
            throw failure;
        }

        return new MemoryFile(descriptor, name, length, hugePages);
    }

    private ulong Seek(ulong offset, int whence)
    {
        if (offset >= Length)
        {
            return Length;
        }

        long found = Interop.Lseek(Descriptor.Number, checked((long)offset), whence);
        if (found >= 0)
        {
            return Math.Min((ulong)found, Length);
        }

        // ENXIO: no content at or after the offset.
        return Marshal.GetLastPInvokeError() == (int)Errno.ENXIO ? Length : throw LinuxException.FromLastError($"seek in memfd {Name} from {offset}");
    }
}
