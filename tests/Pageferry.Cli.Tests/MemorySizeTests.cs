using CsCheck;

namespace Pageferry.Cli.Tests;

public sealed class MemorySizeTests
{
    [Theory]
    [InlineData("4K", 4096UL)]
    [InlineData("4096b", 4096UL)]
    [InlineData("512", 512UL << 20)]
    [InlineData("512M", 512UL << 20)]
    [InlineData("512m", 512UL << 20)]
    [InlineData("512MiB", 512UL << 20)]
    [InlineData("1.5G", 1536UL << 20)]
    [InlineData("2T", 2UL << 40)]
    public void Sizes_are_read_as_qemu_reads_them(string text, ulong bytes)
    {
        Assert.True(MemorySize.TryParse(text, out MemorySize size, out string error), error);
        Assert.Equal(bytes, size.Bytes);
    }

    [Theory]
    [InlineData("", "is not a memory size")]
    [InlineData("M", "is not a memory size")]
    [InlineData("-1G", "is not a memory size")]
    [InlineData("1..5G", "is not a memory size")]
    [InlineData("1 G", "is not a memory size")]
    [InlineData("1GB", "is not a memory size")]
    [InlineData("0x10", "is not a memory size")]
    [InlineData("0", "is zero")]
    [InlineData("0.0G", "is zero")]
    [InlineData("5000b", "not a multiple of the page size")]
    [InlineData("2K", "not a multiple of the page size")]
    [InlineData("0.0001K", "not a multiple of the page size")]
    [InlineData("8388608T", "is beyond what 64-bit addresses reach")]
    [InlineData("99999999999999999999999999999999999999999T", "is not a memory size")]
    public void Sizes_that_no_guest_can_have_are_refused_with_the_reason(string text, string reason)
    {
        Assert.False(MemorySize.TryParse(text, out _, out string error));
        Assert.Contains(reason, error, StringComparison.Ordinal);
        Assert.Contains($"'{text}'", error, StringComparison.Ordinal);
        Assert.Contains("512M", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Any_text_is_a_size_or_an_error() => Gen.String.Sample(text =>
        MemorySize.TryParse(text, out MemorySize size, out string error) ? size.Bytes > 0 && size.Bytes % 4096 == 0 && error.Length == 0 : error.Length > 0);

    [Fact]
    public void A_size_written_and_read_again_is_the_same() => Gen.ULong[1, 1UL << 40].Sample(pages =>
        MemorySize.TryParse(new MemorySize(pages * 4096).ToString(), out MemorySize size, out _) && size.Bytes == pages * 4096);
}
