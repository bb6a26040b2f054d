namespace Pageferry.Linux.Tests;

public class MappedRegionTests
{
    private const ulong Page = 4096;

    [Theory]
    [InlineData(2 * Page, 1)]
    [InlineData(Page, (int)Page + 1)]
    [InlineData(ulong.MaxValue, 2)]
    public void Ranges_beyond_the_region_are_refused(ulong offset, int length)
    {
        using MappedRegion region = MappedRegion.MapAnonymous(2 * Page);
        var bytes = new byte[length];
        Assert.Throws<ArgumentOutOfRangeException>(() => region.Span(offset, length));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.CopyOut(offset, bytes));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.CopyIn(offset, bytes));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.Advise(offset, (ulong)length, MemoryAdvice.DontNeed));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.Protect(offset, (ulong)length, MemoryProtection.Read));
    }

    [Fact]
    public void Advice_and_protection_reach_the_kernel()
    {
        using MappedRegion region = MappedRegion.MapAnonymous(2 * Page);
        region.Span(0, 1)[0] = 1;
        region.Advise(0, Page, MemoryAdvice.DontNeed);
        Assert.Equal(0, region.Span(0, 1)[0]);
        region.Protect(Page, Page, MemoryProtection.Read);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => region.Advise(Page, Page, MemoryAdvice.PopulateWrite)).Errno);
        region.Protect(Page, Page, MemoryProtection.ReadWrite);
        region.Span(Page, 1)[0] = 2;
        Assert.Equal(2, region.Span(Page, 1)[0]);
    }

    [Fact]
    public void What_can_not_be_mapped_says_so()
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => MappedRegion.MapAnonymous(1UL << 60));
        Assert.Equal(Errno.ENOMEM, failure.Errno);
        Assert.Contains($"{1UL << 60} bytes", failure.Message, StringComparison.Ordinal);
    }
}
