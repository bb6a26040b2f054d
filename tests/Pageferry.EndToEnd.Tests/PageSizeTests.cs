using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A guest under KVM whose pages have other sizes where it arrives.</summary>
public sealed class PageSizeTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly HugePages _hugePages = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    public void Dispose()
    {
        _hugePages.Dispose();
        _directory.Dispose();
    }

    [Theory]
    [InlineData("memfd-2m", "memfd", true)]
    [InlineData("memfd-2m", "anonymous", true)]
    [InlineData("memfd", "memfd-2m", false)]
    [InlineData("anonymous", "memfd", false)]
    public async Task It_moves_and_has_huge_pages_again_if_it_had_some(string from, string to, bool isCollapsed)
    {
        using GuestProcess source = await GuestProcess.RunGuestAsync("random", A, "--memory", "64M", "--vcpus", "2", "--backing", from);
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--backing", to);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        JsonElement status = await destination.WaitForStateAsync("running");
        Assert.Equal(to, status.GetProperty("backing").GetString());
        Assert.Equal(isCollapsed, status.TryGetProperty("huge_pages_collapsed", out _));
        if (isCollapsed)
        {
            status = await destination.WaitAsync(
                now => now.GetProperty("huge_pages_collapsed").GetInt64() + now.GetProperty("huge_pages_left").GetInt64() == 32, "all of the memory was gone over");
            Assert.InRange(status.GetProperty("huge_pages_collapsed").GetInt64(), 1, 32);
        }

        await destination.MakePassesAsync(3);
    }
}
