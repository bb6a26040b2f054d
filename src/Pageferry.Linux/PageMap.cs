using System.Globalization;

namespace Pageferry.Linux;

/// <summary>What the kernel knows of a process's pages: /proc/PID/pagemap and mincore(2).</summary>
public sealed class PageMap : IDisposable
{
    private readonly FileDescriptor _descriptor;

    private PageMap(FileDescriptor descriptor) => _descriptor = descriptor;

    /// <summary>Opens the page map of this process.</summary>
    /// <returns>The page map, which the caller disposes.</returns>
    /// <exception cref="LinuxException">/proc is not mounted.</exception>
    public static PageMap Open() => Open("/proc/self/pagemap");

    /// <summary>Opens the page map of another process.</summary>
    /// <param name="processId">Its process id.</param>
    /// <returns>The page map, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ENOENT: there is no such process. EACCES: it may not be traced (ptrace access mode).</exception>
    public static PageMap Open(int processId) => Open(string.Create(CultureInfo.InvariantCulture, $"/proc/{processId}/pagemap"));

    /// <summary>Finds the runs of pages that have some categories (<c>PAGEMAP_SCAN</c>, Linux 6.7).</summary>
    /// <param name="start">The first address; a page multiple.</param>
    /// <param name="end">The first address after the range; a page multiple.</param>
    /// <param name="required">The categories that a page must have, all of them.</param>
    /// <param name="reported">The categories told of each run.</param>
    /// <param name="ranges">Takes the runs, in ascending order.</param>
    /// <param name="scannedTo">Where the kernel stopped: <paramref name="end"/>, or earlier when <paramref name="ranges"/> was full.</param>
    /// <returns>How many runs were found.</returns>
    /// <exception cref="LinuxException">ENOTTY: the kernel is older. EINVAL: the range makes no sense.</exception>
    public int Scan(ulong start, ulong end, PageCategories required, PageCategories reported, Span<PageRange> ranges, out ulong scannedTo)
    {
        // SAFETY: the structure is local and states its own size; the kernel writes at most as many ranges as the pinned span holds.
        unsafe
        {
            fixed (PageRange* vector = ranges)
            {
                var scan = new Interop.pm_scan_arg
                {
                    size = (ulong)sizeof(Interop.pm_scan_arg),
                    start = start,
                    end = end,
                    vec = (ulong)vector,
                    vec_len = (ulong)ranges.Length,
                    category_mask = (ulong)required,
                    return_mask = (ulong)reported,
                };
                int found = Interop.Ioctl(_descriptor.Number, Interop.PAGEMAP_SCAN, &scan);
                scannedTo = scan.walk_end;
                return found >= 0 ? found : throw LinuxException.FromLastError($"scan the pages from 0x{start:x} to 0x{end:x}");
            }
        }
    }

    /// <summary>Which pages of a mapping have content in memory (mincore(2)): for shared memory, in the page cache.</summary>
    /// <param name="region">The mapping.</param>
    /// <param name="offset">Bytes from the region's start; a page multiple.</param>
    /// <param name="resident">Takes a byte for each page, whose lowest bit is 1 for a page that is there; its length says how many pages.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the region.</exception>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void Mincore(MappedRegion region, ulong offset, Span<byte> resident)
    {
        ulong length = (ulong)resident.Length * (ulong)Environment.SystemPageSize;
        if (offset > region.Length || length > region.Length - offset)
        {
            throw new ArgumentOutOfRangeException(nameof(offset), $"{resident.Length} pages at {offset} are not within a region of {region.Length} bytes.");
        }

        // SAFETY: the kernel writes one byte per page to the pinned span, whose length gave the number of pages.
        unsafe
        {
            fixed (byte* vector = resident)
            {
                if (Interop.Mincore((nint)(region.Address + offset), (nuint)length, vector) != 0)
                {
                    throw LinuxException.FromLastError($"ask which of {resident.Length} pages at 0x{region.Address + offset:x} are in memory");
                }
            }
        }
    }

    /// <summary>Closes the page map.</summary>
    public void Dispose() => _descriptor.Dispose();

    private static PageMap Open(string path)
    {
        int fd = Interop.Open(path, Interop.O_RDONLY | Interop.O_CLOEXEC);
        return fd >= 0 ? new PageMap(new FileDescriptor(fd)) : throw LinuxException.FromLastError($"open {path}");
    }
}
