namespace Pageferry.Linux.Tests;

public class PageMapTests
{
    private const ulong Page = 4096;

    [Fact]
    public void Mapped_pages_are_found_in_runs()
    {
        using MappedRegion region = MappedRegion.MapAnonymous(16 * Page);
        region.Advise(0, region.Length, MemoryAdvice.NoHugePage);
        foreach (ulong page in (ulong[])[2, 3, 7])
        {
            region.Span(page * Page, 1)[0] = 1;
        }

        using PageMap map = PageMap.Open(Environment.ProcessId);
        var ranges = new PageRange[4];
        Assert.Equal(2, Scan(map, region, ranges, out ulong scannedTo));
        Assert.Equal(region.Address + region.Length, scannedTo);
        Assert.Equal(new PageRange(region.Address + (2 * Page), region.Address + (4 * Page), PageCategories.Present), ranges[0]);
        Assert.Equal(new PageRange(region.Address + (7 * Page), region.Address + (8 * Page), PageCategories.Present), ranges[1]);

        // A full buffer ends the scan where it can go on.
        Assert.Equal(1, Scan(map, region, ranges.AsSpan(0, 1), out scannedTo));
        Assert.InRange(scannedTo, region.Address + (4 * Page), region.Address + (7 * Page));
    }

    [Fact]
    public void A_page_in_the_page_cache_is_told_from_a_hole()
    {
        using MemoryFile file = MemoryFile.Create("core", 4 * Page);
        using MappedRegion view = MappedRegion.MapShared(file.Descriptor, 0, 4 * Page);
        view.Span(2 * Page, 1)[0] = 1;
        var resident = new byte[4];
        PageMap.Mincore(view, 0, resident);
        Assert.Equal([0, 0, 1, 0], resident.Select(value => value & 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => PageMap.Mincore(view, Page, resident));
    }

    [Fact]
    public void A_process_that_is_not_there_is_named()
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => PageMap.Open(int.MaxValue));
        Assert.Equal(Errno.ENOENT, failure.Errno);
        Assert.Contains($"/proc/{int.MaxValue}/pagemap", failure.Message, StringComparison.Ordinal);
    }

    private static int Scan(PageMap map, MappedRegion region, Span<PageRange> ranges, out ulong scannedTo) =>
        map.Scan(region.Address, region.Address + region.Length, PageCategories.Present, PageCategories.Present, ranges, out scannedTo);
}
