namespace Pageferry.Linux.Tests;

public class MappedRegionTests
{
    private static readonly ulong s_page = (ulong)Environment.SystemPageSize;

    public static TheoryData<ulong, int> RangesOutside => new()
    {
        { 2 * s_page, 1 },
        { (2 * s_page) + 1, 0 },
        { (2 * s_page) - 1, 2 },
        { 0, (int)(2 * s_page) + 1 },
        { ulong.MaxValue, 1 },
        { ulong.MaxValue, 2 },
    };

    [Theory]
    [MemberData(nameof(RangesOutside))]
    public void A_range_outside_is_refused(ulong offset, int length)
    {
        using var region = MappedRegion.MapAnonymous(2 * s_page);
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = region.Span(offset, length));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.CopyIn(offset, new byte[length]));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.CopyOut(offset, new byte[length]));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.Advise(offset, (ulong)length, MemoryAdvice.DontNeed));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.Protect(offset, (ulong)length, MemoryProtection.Read));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Small_pages_become_a_huge_one_and_keep_what_they_hold(bool isShared)
    {
        const ulong HugePage = 2 << 20;
        using var file = MemoryFile.Create("test", 2 * HugePage);
        using MappedRegion region = isShared ? MappedRegion.MapShared(file.Descriptor, 0, 2 * HugePage) : MappedRegion.MapAnonymous(2 * HugePage);
        Assert.Equal(0UL, region.Address % HugePage);
        region.CopyIn(5 * s_page, [5]);
        Assert.True(region.TryCollapse(0), $"{LinuxException.FromLastError("collapse").Message}");
        Assert.Equal(2048, HugeKibibytes(region.Address));
        Assert.Equal(5, region.Span(5 * s_page, 1)[0]);
        Assert.Equal(0, region.Span(6 * s_page, 1)[0]);

        // There is nothing to collapse.
        Assert.False(region.TryCollapse(HugePage));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => region.TryCollapse(HugePage + s_page));
    }

    [Fact]
    public void A_negative_length_is_refused()
    {
        using var region = MappedRegion.MapAnonymous(s_page);
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = region.Span(0, -1));
    }

    [Fact]
    public void Every_byte_can_be_written_and_read()
    {
        using var region = MappedRegion.MapAnonymous(2 * s_page);
        byte[] written = new byte[2 * s_page];
        new Random(1).NextBytes(written);
        region.CopyIn(0, written);
        Assert.Equal(written, region.Span(0, written.Length));
        var read = new byte[written.Length];
        region.CopyOut(0, read);
        Assert.Equal(written, read);
        region.CopyIn(2 * s_page, []);
        region.CopyOut(2 * s_page, []);
        Assert.True(region.Span(2 * s_page, 0).IsEmpty);
    }

    [Fact]
    public void Content_that_is_not_needed_is_zero_again()
    {
        using var region = MappedRegion.MapAnonymous(2 * s_page);
        region.Span(0, (int)(2 * s_page)).Fill(1);
        region.Advise(s_page, s_page, MemoryAdvice.DontNeed);
        Assert.Equal(1, region.Span(s_page - 1, 1)[0]);
        Assert.Equal(0, region.Span(s_page, 1)[0]);
    }

    [Fact]
    public void Refusals_have_the_range_and_the_errnos_name()
    {
        using var region = MappedRegion.MapAnonymous(2 * s_page);
        LinuxException failure = Assert.Throws<LinuxException>(() => region.Advise(1, s_page, MemoryAdvice.DontNeed));
        Assert.StartsWith($"Could not madvise DontNeed on {s_page} bytes at 0x{region.Address + 1:x}: EINVAL", failure.Message, StringComparison.Ordinal);
        failure = Assert.Throws<LinuxException>(() => region.Protect(1, s_page, MemoryProtection.ReadWrite));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains("mprotect ReadWrite", failure.Message, StringComparison.Ordinal);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => MappedRegion.MapAnonymous(0)).Errno);
        Assert.Equal(Errno.ENOMEM, Assert.Throws<LinuxException>(() => MappedRegion.MapAnonymous(1UL << 60)).Errno);
    }

    [Fact]
    public void After_its_end_a_region_has_no_address()
    {
        var region = MappedRegion.MapAnonymous(s_page);
        region.Dispose();
        region.Dispose();
        Assert.Throws<ObjectDisposedException>(() => region.Address);
        Assert.Throws<ObjectDisposedException>(() => _ = region.Span(0, 1));
        Assert.Throws<ObjectDisposedException>(() => region.CopyIn(0, [1]));
    }

    private static int HugeKibibytes(ulong address)
    {
        string[] mapping = [.. File.ReadLines("/proc/self/smaps").SkipWhile(line => !line.StartsWith($"{address:x}-", StringComparison.Ordinal)).Take(30)];
        return mapping.Where(line => line.StartsWith("AnonHugePages", StringComparison.Ordinal) || line.StartsWith("ShmemPmdMapped", StringComparison.Ordinal))
            .Sum(line => int.Parse(line.Split(':')[1].Replace("kB", string.Empty, StringComparison.Ordinal), System.Globalization.CultureInfo.InvariantCulture));
    }
}
