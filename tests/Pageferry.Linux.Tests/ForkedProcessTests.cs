using System.Text;

namespace Pageferry.Linux.Tests;

public class ForkedProcessTests
{
    private const int Patience = 10_000;

    [Fact]
    public void A_copy_ends_with_what_its_function_finds_in_its_own_memory()
    {
        using var memory = MappedRegion.MapAnonymous(4096);
        memory.CopyIn(0, Encoding.ASCII.GetBytes("42"));
        using var child = ForkedProcess.Start("atoi", memory.Address);
        Assert.True(child.TryWait(Patience, out byte? status));
        Assert.Equal((byte)42, status);
    }

    [Fact]
    public void What_a_copy_writes_is_its_own()
    {
        using var memory = MappedRegion.MapAnonymous(4096);
        using var child = ForkedProcess.Start("time", memory.Address);
        Assert.True(child.TryWait(Patience, out byte? status));
        Assert.NotNull(status);
        Assert.Equal(0, memory.Span(0, 1)[0]);
    }

    [Fact]
    public void A_copy_that_does_not_end_is_ended()
    {
        var child = ForkedProcess.Start("pause", 0);
        Assert.False(child.TryWait(10, out _));
        child.Dispose();
        Assert.False(Directory.Exists($"/proc/{child.Id}"));
    }

    [Fact]
    public void A_copy_that_a_signal_ends_has_no_status()
    {
        using var child = ForkedProcess.Start("raise", 9);
        Assert.True(child.TryWait(Patience, out byte? status));
        Assert.Null(status);
    }
}
