using System.Text.Json;
using static Pageferry.EndToEnd.Tests.Command;

namespace Pageferry.EndToEnd.Tests;

/// <summary>What an operator asks of a migration, and sees of it.</summary>
public sealed class MigrationOutputTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    private string Report => _directory.Path("a.html");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Every_option_reaches_the_migration()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = await source.MigrateAsync(
            destination.Endpoint, "--mode", "precopy", "--downtime-limit", "1ms", "--connections", "3", "--compression", "zstd", "--max-bandwidth", "40M", "--max-postcopy-bandwidth", "20M",
            "--timeout", "150ms", "--on-timeout", "postcopy", "--auto-converge", "--validate", "--reconnect-for", "7m", "--link-timeout", "2s", "--report", Report);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        Assert.Contains("; the timeout is over: the guest goes now", migrate.Errors, StringComparison.Ordinal);
        using JsonDocument report = ReportTests.Read(Report);
        JsonElement options = report.RootElement.GetProperty("options");
        Assert.Equal("precopy", options.GetProperty("mode").GetString());
        Assert.Equal(1, options.GetProperty("downtime_limit_ms").GetDouble());
        Assert.Equal(3, options.GetProperty("connections").GetInt32());
        Assert.Equal("zstd", options.GetProperty("compression").GetString());
        Assert.Equal(40L << 20, options.GetProperty("max_bandwidth").GetInt64());
        Assert.Equal(20L << 20, options.GetProperty("max_postcopy_bandwidth").GetInt64());
        Assert.Equal(150, options.GetProperty("timeout_ms").GetDouble());
        Assert.Equal("postcopy", options.GetProperty("on_timeout").GetString());
        Assert.True(options.GetProperty("auto_converge").GetBoolean());
        Assert.True(options.GetProperty("validate").GetBoolean());
        Assert.Equal(420_000, options.GetProperty("reconnect_for_ms").GetDouble());
        Assert.Equal(2000, options.GetProperty("link_timeout_ms").GetDouble());
        await destination.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("precopy", "--max-bandwidth")]
    [InlineData("postcopy", "--max-postcopy-bandwidth")]
    public async Task A_bandwidth_limit_holds_and_is_seen_while_it_does(string mode, string limit)
    {
        const double MibPerS = 16;
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "128M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", mode, limit, "16M");
        JsonElement before = await source.WaitAsync(status => Moved(status) > 4 << 20, "the first pages");
        if (mode == "postcopy")
        {
            // What the guest waits for is not held to it.
            await DoAsync("vm", "pause", "--control", B);
            before = source.Status();
        }

        await Task.Delay(3000);
        JsonElement after = source.Status();
        double rate = (Moved(after) - Moved(before)) / (Migration(after).GetProperty("total_ms").GetDouble() - Migration(before).GetProperty("total_ms").GetDouble()) * 1000 / (1 << 20);
        Assert.InRange(rate, MibPerS / 2, MibPerS * 1.2);
        if (mode == "precopy")
        {
            // In the first round nothing else tells how fast it goes.
            Assert.Equal(1, Migration(after).GetProperty("round").GetInt32());
            Assert.False(Migration(after).TryGetProperty("bandwidth_mib_per_s", out _));
            Assert.InRange(Migration(after).GetProperty("bytes_mib_per_s").GetDouble(), MibPerS / 2, MibPerS * 1.5);
        }
    }

    [Fact]
    public async Task Both_sides_are_watched_to_their_end()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using var watchSource = PageferryProcess.Start("vm", "status", "--watch", "--json", "--control", A);
        using var watchPlainly = PageferryProcess.Start("vm", "status", "--watch", "--control", A);
        using var watchDestination = PageferryProcess.Start("vm", "status", "--watch", "--json", "--control", B);
        await watchSource.WaitUntilAsync(() => watchSource.Output.Length > 0 && watchPlainly.Output.Length > 0 && watchDestination.Output.Length > 0, "the first lines");
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "16M", "--json");
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        JsonElement[] asked = Lines(migrate.Output);
        Assert.Equal("moved", asked[^1].GetProperty("state").GetString());
        Assert.Contains(asked, status => Phase(status) == "post_copy");

        await watchSource.WaitForExitAsync();
        Assert.Equal(0, watchSource.ExitCode);
        JsonElement[] seen = Lines(watchSource.Output);
        Assert.True(seen.Length >= 4, watchSource.Output);
        Assert.Equal("running", seen[0].GetProperty("state").GetString());
        Assert.Equal("moved", seen[^1].GetProperty("state").GetString());
        Assert.Equal("completed", Phase(seen[^1]));

        await watchPlainly.WaitForExitAsync();
        Assert.Equal(0, watchPlainly.ExitCode);
        Assert.Contains("\npost_copy: ", watchPlainly.Output, StringComparison.Ordinal);
        Assert.Contains("\ncompleted: 16,384 of 16,384 pages", watchPlainly.Output, StringComparison.Ordinal);
        Assert.EndsWith($"Process {source.Process.Pid} ended.\n", watchPlainly.Output, StringComparison.Ordinal);

        await destination.WaitForStateAsync("running");
        destination.Process.Kill();
        await watchDestination.WaitForExitAsync();
        Assert.Equal(1, watchDestination.ExitCode);
        Assert.Contains($"Process {destination.Process.Pid} ended, and the guest's state there was 'running' when it was last seen", watchDestination.Errors, StringComparison.Ordinal);
        seen = Lines(watchDestination.Output);
        Assert.Equal("waiting", seen[0].GetProperty("state").GetString());
        Assert.False(seen[^1].GetProperty("ok").GetBoolean());
        Assert.Contains(seen, status => Phase(status) == "post_copy" && Migration(status).TryGetProperty("fault_latency_now_us", out JsonElement now) && now.GetProperty("max").GetDouble() > 0);
    }

    [Fact]
    public async Task A_terminal_shows_a_panel_of_what_is_known()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "16M");
        await destination.WaitForStateAsync("arriving");
        using PageferryProcess watch = OnTerminal($"vm status --watch --control {B}");
        await watch.WaitUntilAsync(() => watch.Output.Contains("on the wire", StringComparison.Ordinal), "the panel");
        Assert.Matches(@"│ from +127\.0\.0\.1:", watch.Output);
        Assert.DoesNotMatch(@"│ to +127\.0\.0\.1:", watch.Output);
        using PageferryProcess demo = OnTerminal("demo --memory 16M --host threads");
        await demo.WaitForExitAsync();
        Assert.Contains("; guest in pass ", demo.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("guest in pass ,", demo.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_migration_that_fails_says_so_in_one_line_and_is_forgotten_by_the_next()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using (PageferryProcess failed = await source.MigrateAsync("127.0.0.1:9", "--json"))
        {
            Assert.Equal(1, failed.ExitCode);
            JsonElement last = Lines(failed.Output)[^1];
            Assert.False(last.GetProperty("ok").GetBoolean());
            Assert.Equal(source.Status().GetProperty("error").GetString(), last.GetProperty("error").GetString());
        }

        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "precopy", "--max-bandwidth", "8M");
        JsonElement status = await source.WaitForStateAsync("leaving");
        Assert.False(status.TryGetProperty("error", out _), status.ToString());
    }

    /// <summary>Starts the built command on a terminal of its own: script(1).</summary>
    private static PageferryProcess OnTerminal(string arguments) =>
        PageferryProcess.StartProgram("env", "TERM=xterm", "script", "--quiet", "--return", "--command", $"{PageferryProcess.Program} {arguments}", "/dev/null");

    private static JsonElement[] Lines(string output) => [.. output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];

    private static JsonElement Migration(JsonElement status) => status.TryGetProperty("migration", out JsonElement migration) ? migration : default;

    private static string? Phase(JsonElement status) => status.TryGetProperty("migration", out JsonElement migration) ? migration.GetProperty("phase").GetString() : null;

    private static long Moved(JsonElement status) => status.TryGetProperty("migration", out JsonElement migration) ? migration.GetProperty("bytes").GetInt64() : 0;
}
