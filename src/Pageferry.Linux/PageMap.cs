using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>What the pages of a process's address space are, without touching them: <c>/proc/PID/pagemap</c> and mincore(2).</summary>
public sealed class PageMap : IDisposable
{
    private readonly int _processId;

    private PageMap(FileDescriptor descriptor, int processId)
    {
        Descriptor = descriptor;
        _processId = processId;
    }

    /// <summary>The open pagemap.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Opens the page map of a process.</summary>
    /// <param name="processId">The process; it may be this one.</param>
    /// <returns>The page map, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ENOENT: no such process. EACCES: this process may not look into it.</exception>
    public static PageMap Open(int processId)
    {
        int fd = Interop.Open($"/proc/{processId}/pagemap", Interop.O_RDONLY | Interop.O_CLOEXEC);
        return fd >= 0
            ? new PageMap(new FileDescriptor(fd), processId)
            : throw LinuxException.FromLastError(
                $"open the page map of process {processId}", "Run as the process's user or as root; it has to be alive.");
    }

    /// <summary>Whether pages of this process would be touched without reading a disk (mincore(2)): for shared memory, whether they have content.</summary>
    /// <param name="address">The first address; a page multiple.</param>
    /// <param name="pages">Receives a byte for each page: bit 0 is set for yes, the others mean nothing.</param>
    /// <exception cref="LinuxException">EINVAL: the address is no page multiple. ENOMEM: a page is not mapped.</exception>
    public static void InCore(ulong address, Span<byte> pages)
    {
        nuint length = (nuint)pages.Length * (nuint)Environment.SystemPageSize;
        int result;

        // SAFETY: the kernel writes a byte for each page of the length, and the length is made of the span's bytes, pinned for the call.
        unsafe
        {
            fixed (byte* vector = pages)
            {
                result = Interop.Mincore((nint)address, length, vector);
            }
        }

        if (result != 0)
        {
            throw LinuxException.FromLastError($"ask whether {pages.Length} pages at 0x{address:x} are in memory");
        }
    }

    /// <summary>Finds pages (<c>PAGEMAP_SCAN</c>, Linux 6.7).</summary>
    /// <param name="start">The first address; a page multiple.</param>
    /// <param name="end">The address after the last; a page multiple.</param>
    /// <param name="filter">Which pages.</param>
    /// <param name="report">The categories told of each range; neighbours that differ in these only are told apart.</param>
    /// <param name="ranges">Receives the ranges found, ascending; at least 1 long.</param>
    /// <param name="walkEnd">Where the scan stopped: <paramref name="end"/>, or where to go on because <paramref name="ranges"/> was full.</param>
    /// <returns>How many ranges were found; 0 when the process is gone.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="ranges"/> is empty.</exception>
    /// <exception cref="LinuxException">EINVAL or EFAULT: the range makes no sense. ENOTTY: a kernel before Linux 6.7.</exception>
    public int Scan(ulong start, ulong end, PageFilter filter, PageCategories report, Span<PageRange> ranges, out ulong walkEnd) =>
        ScanWith(flags: 0, start, end, filter, report, ranges, out walkEnd);

    /// <summary>
    /// Finds pages that were written, and write-protects them, each at once (<c>PAGEMAP_SCAN</c> with <c>PM_SCAN_WP_MATCHING</c>): a write from then on is
    /// found by the next scan. Pages that never had content are told too, the first time.
    /// </summary>
    /// <param name="start">The first address; a page multiple. All of it is registered with a userfaultfd that protects without a message (WP_ASYNC).</param>
    /// <param name="end">The address after the last; a page multiple.</param>
    /// <param name="ranges">Receives the ranges found, ascending; at least 1 long.</param>
    /// <param name="walkEnd">Where it stopped: <paramref name="end"/>, or where to go on because <paramref name="ranges"/> was full.</param>
    /// <returns>How many ranges were found; 0 when the process is gone.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="ranges"/> is empty.</exception>
    /// <exception cref="LinuxException">EPERM: not so registered. EINVAL or EFAULT: the range makes no sense. ENOTTY: a kernel before Linux 6.7.</exception>
    public int ProtectWritten(ulong start, ulong end, Span<PageRange> ranges, out ulong walkEnd) => ScanWith(
        Interop.PM_SCAN_WP_MATCHING | Interop.PM_SCAN_CHECK_WPASYNC,
        start,
        end,
        new PageFilter { All = PageCategories.Written },
        PageCategories.Written,
        ranges,
        out walkEnd);

    /// <summary>Closes the page map.</summary>
    public void Dispose() => Descriptor.Dispose();

    private int ScanWith(ulong flags, ulong start, ulong end, PageFilter filter, PageCategories report, Span<PageRange> ranges, out ulong walkEnd)
    {
        ArgumentOutOfRangeException.ThrowIfZero(ranges.Length);
        int found;

        // SAFETY: the kernel reads and fills a structure whose size it is told, and at most vec_len entries of the pinned span.
        unsafe
        {
            fixed (PageRange* first = ranges)
            {
                var scan = new Interop.pm_scan_arg
                {
                    size = (ulong)sizeof(Interop.pm_scan_arg),
                    flags = flags,
                    start = start,
                    end = end,
                    vec = (ulong)first,
                    vec_len = (ulong)ranges.Length,
                    category_inverted = (ulong)filter.None,
                    category_mask = (ulong)(filter.All | filter.None),
                    category_anyof_mask = (ulong)filter.Any,
                    return_mask = (ulong)report,
                };
                found = Interop.Ioctl(Descriptor.Number, Interop.PAGEMAP_SCAN, &scan);
                walkEnd = scan.walk_end;
            }
        }

        if (found >= 0)
        {
            return found;
        }

        if (Marshal.GetLastPInvokeError() == (int)Errno.ESRCH)
        {
            // What some kernels say of a process that is gone; others find nothing.
            walkEnd = end;
            return 0;
        }

        string? advice = Marshal.GetLastPInvokeError() == (int)Errno.ENOTTY ? "Linux 6.7 or later is needed." : null;
        throw LinuxException.FromLastError($"scan the pages 0x{start:x} to 0x{end:x} of process {_processId}", advice);
    }
}
