using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>What <c>--mode auto</c> decides for guests that write more or less than the link carries.</summary>
[Collection(nameof(Alone))]
public sealed class AutoTests : IDisposable
{
    /// <summary>What 300 ms carry at 50 MiB/s.</summary>
    private const long PagesWithinLimit = 15 * 256;

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    /// <summary>Over 50 MiB/s with 300 ms allowed, 56 MiB take 1.1 s at first.</summary>
    /// <param name="guest">What it is called.</param>
    /// <param name="mebibytesPerSecond">How fast it writes; 0 for as fast as it can.</param>
    /// <param name="goesOn">What is decided before the last decision; null if that is the first.</param>
    /// <param name="ends">The last decision.</param>
    [NeedsKvm]
    [Theory]
    [InlineData("quiet", 1, null, "stopping the guest for about")]
    [InlineData("medium", 30, "another round, since stopping now would take", "stopping the guest for about")]
    [InlineData("furious", 0, null, "that does not converge")]
    public async Task A_guest_goes_as_its_writing_asks_for(string guest, int mebibytesPerSecond, string? goesOn, string ends)
    {
        string image = _directory.Path($"{guest}.bin");
        await File.WriteAllBytesAsync(image, PacedGuest.Assemble((long)mebibytesPerSecond << 20));
        using GuestProcess source = await GuestProcess.RunGuestAsync(image, _directory.Path("a.sock"), "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(_directory.Path("b.sock"));
        await source.Process.WaitUntilAsync(() => source.Process.Output.Contains("filled", StringComparison.Ordinal), "that its memory is written");
        using PageferryProcess migrate = await source.MigrateAsync(
            destination.Endpoint, "--max-bandwidth", "50M", "--max-postcopy-bandwidth", "50M", "--report", _directory.Path("report.html"), "--validate");
        Assert.True(migrate.ExitCode == 0, migrate.Errors);

        // The report shows it over time: what each round left, and what was decided then.
        using JsonDocument report = ReportTests.Read(_directory.Path("report.html"));
        JsonElement migration = report.RootElement.GetProperty("status").GetProperty("migration");
        string[] decisions = [.. migration.GetProperty("decisions").EnumerateArray().Select(decision => decision.GetString()!)];
        Assert.Contains(ends, decisions[^1], StringComparison.Ordinal);
        Assert.Equal(goesOn is not null, decisions.Length > 1);
        Assert.All(decisions[..^1], decision => Assert.Contains(goesOn!, decision, StringComparison.Ordinal));
        string[] shown = [.. report.RootElement.GetProperty("moments").EnumerateArray().Where(moment => moment.TryGetProperty("decision", out _)).Select(moment => moment.GetProperty("decision").GetString()!)];
        Assert.Equal(decisions, shown);

        // What does not go within the limit, on a machine that is busier than when it was predicted, follows: no more than was to go then.
        long followed = migration.GetProperty("pages_demand").GetInt64() + migration.GetProperty("pages_background").GetInt64();
        Assert.Equal(guest == "furious", followed > PagesWithinLimit);

        // It goes on there, and would end with code 1 on the first page that is not as it left it.
        JsonElement there = destination.Status();
        Assert.Equal("running", there.GetProperty("state").GetString());
        Assert.False(there.TryGetProperty("exit_code", out _), there.ToString());
    }
}
