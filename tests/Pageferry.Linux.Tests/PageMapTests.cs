using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using static Pageferry.Linux.Tests.FaultListener;

namespace Pageferry.Linux.Tests;

public sealed class PageMapTests : IDisposable
{
    private readonly PageMap _map = PageMap.Open(Environment.ProcessId);

    public void Dispose() => _map.Dispose();

    [Fact]
    public void Pages_that_are_there_are_told_from_holes()
    {
        using var memory = MappedRegion.MapAnonymous(16 * PageSize);
        memory.Advise(0, memory.Length, MemoryAdvice.NoHugePage);
        memory.CopyIn(2 * PageSize, new byte[2 * PageSize]);
        memory.CopyIn(9 * PageSize, [1]);
        memory.Advise(12 * PageSize, PageSize, MemoryAdvice.PopulateRead);
        PageRange[] read = [Range(memory, 12, 13, HasZeroPage() ? PageCategories.ZeroPage : PageCategories.Present)];
        var ranges = new PageRange[8];
        int count = Scan(memory, new PageFilter { All = PageCategories.Present, None = PageCategories.ZeroPage }, PageCategories.Present | PageCategories.File, ranges, out ulong walkEnd);
        Assert.Equal(
            [Range(memory, 2, 4, PageCategories.Present), Range(memory, 9, 10, PageCategories.Present), .. read.Where(range => range.Categories == PageCategories.Present)],
            ranges[..count]);
        Assert.Equal(memory.Address + memory.Length, walkEnd);

        count = Scan(memory, new PageFilter { None = PageCategories.Present }, PageCategories.Present, ranges, out _);
        Assert.Equal(
            [
                Range(memory, 0, 2, PageCategories.None),
                Range(memory, 4, 9, PageCategories.None),
                Range(memory, 10, 12, PageCategories.None),
                Range(memory, 13, 16, PageCategories.None),
            ],
            ranges[..count]);

        count = Scan(memory, new PageFilter { Any = PageCategories.ZeroPage | PageCategories.Swapped }, PageCategories.ZeroPage, ranges, out _);
        Assert.Equal([.. read.Where(range => range.Categories == PageCategories.ZeroPage)], ranges[..count]);
    }

    [Fact]
    public void A_full_buffer_is_gone_on_from()
    {
        using var memory = MappedRegion.MapAnonymous(16 * PageSize);
        memory.Advise(0, memory.Length, MemoryAdvice.NoHugePage);
        foreach (ulong page in (ulong[])[1, 5, 6, 11])
        {
            memory.CopyIn(page * PageSize, [1]);
        }

        var found = new List<PageRange>();
        var range = new PageRange[1];
        ulong start = memory.Address;
        ulong end = memory.Address + memory.Length;
        while (start < end)
        {
            int count = _map.Scan(start, end, new PageFilter { All = PageCategories.Present }, PageCategories.Present, range, out ulong walkEnd);
            found.AddRange(range[..count]);
            Assert.True(walkEnd > start);
            start = walkEnd;
        }

        Assert.Equal(
            [Range(memory, 1, 2, PageCategories.Present), Range(memory, 5, 7, PageCategories.Present), Range(memory, 11, 12, PageCategories.Present)],
            found);
    }

    [Fact]
    public void Pages_of_shared_memory_are_of_a_file()
    {
        using var file = MemoryFile.Create("test", 2 * PageSize);
        using var memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        memory.CopyIn(PageSize, [1]);
        var ranges = new PageRange[2];
        Assert.Equal(1, Scan(memory, new PageFilter { All = PageCategories.File | PageCategories.Present }, PageCategories.File, ranges, out _));
        Assert.Equal(Range(memory, 1, 2, PageCategories.File), ranges[0]);
    }

    [Fact]
    public void Content_of_shared_memory_is_in_core_whether_or_not_it_is_mapped()
    {
        using var file = MemoryFile.Create("test", 4 * PageSize);
        using var written = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        using var memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        written.CopyIn(PageSize, new byte[2 * PageSize]);
        var pages = new byte[4];
        PageMap.InCore(memory.Address, pages);
        Assert.Equal([0, 1, 1, 0], pages.Select(page => page & 1));
    }

    [Fact]
    public void What_makes_no_sense_is_refused_by_name()
    {
        using var memory = MappedRegion.MapAnonymous(PageSize);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => PageMap.InCore(memory.Address + 1, new byte[1])).Errno);
        Assert.Equal(Errno.ENOMEM, Assert.Throws<LinuxException>(() => PageMap.InCore(0, new byte[1])).Errno);
        Assert.Throws<ArgumentOutOfRangeException>(() => Scan(memory, default, default, [], out _));
        LinuxException failure = Assert.Throws<LinuxException>(
            () => _map.Scan(memory.Address + 1, memory.Address, default, default, new PageRange[1], out _));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains($"of process {Environment.ProcessId}", failure.Message, StringComparison.Ordinal);
        Assert.Equal(Errno.ENOENT, Assert.Throws<LinuxException>(() => PageMap.Open(int.MaxValue)).Errno);
    }

    [Fact]
    public void A_scan_allocates_nothing()
    {
        using var memory = MappedRegion.MapAnonymous(PageSize);
        var ranges = new PageRange[1];
        Scan(memory, default, default, ranges, out _);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Scan(memory, default, default, ranges, out _);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
    }

    /// <summary>Whether pages that were only read are one: some hypervisors have their guests' kernels give each a page of its own.</summary>
    private static bool HasZeroPage()
    {
        const ulong FrameNumber = (1UL << 55) - 1;
        using var memory = MappedRegion.MapAnonymous(2 * PageSize);
        memory.Advise(0, memory.Length, MemoryAdvice.NoHugePage);
        memory.Advise(0, memory.Length, MemoryAdvice.PopulateRead);
        var entries = new byte[2 * sizeof(ulong)];
        using SafeFileHandle pagemap = File.OpenHandle("/proc/self/pagemap");
        Assert.Equal(entries.Length, RandomAccess.Read(pagemap, entries, (long)(memory.Address / PageSize * sizeof(ulong))));
        ulong different = BinaryPrimitives.ReadUInt64LittleEndian(entries) ^ BinaryPrimitives.ReadUInt64LittleEndian(entries.AsSpan(sizeof(ulong)));
        return (different & FrameNumber) == 0;
    }

    private static PageRange Range(MappedRegion memory, ulong first, ulong end, PageCategories categories) =>
        new(memory.Address + (first * PageSize), memory.Address + (end * PageSize), categories);

    private int Scan(MappedRegion memory, PageFilter filter, PageCategories report, Span<PageRange> ranges, out ulong walkEnd) =>
        _map.Scan(memory.Address, memory.Address + memory.Length, filter, report, ranges, out walkEnd);
}
