using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>What becomes of a migration when the command that asked for it ends.</summary>
public sealed class MigrateClientTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Ctrl_c_before_the_switchover_cancels_the_migration()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "precopy", "--max-bandwidth", "8M");
        await source.WaitAsync(status => Phase(status) == "pre_copy", "pre-copy");
        migrate.Signal("INT");
        await migrate.WaitForExitAsync();
        Assert.Equal(130, migrate.ExitCode);
        Assert.Contains("The migration was cancelled; the guest is running", migrate.Errors, StringComparison.Ordinal);
        Assert.Equal("running", source.State);
        await source.MakePassesAsync(2);
        Assert.Equal("waiting", destination.State);
    }

    [Fact]
    public async Task Ctrl_c_after_the_switchover_says_that_the_migration_goes_on()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "6M");
        await destination.WaitForStateAsync("arriving");
        migrate.Signal("INT");
        await migrate.WaitForExitAsync();
        Assert.Equal(130, migrate.ExitCode);
        Assert.Contains("Too late to cancel", migrate.Errors, StringComparison.Ordinal);
        Assert.Contains($"pageferry vm status --control {A} --watch", migrate.Errors, StringComparison.Ordinal);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("KILL")]
    [InlineData("HUP")]
    public async Task A_terminal_that_is_lost_leaves_the_migration_alone(string signal)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--max-bandwidth", "32M");
        await source.WaitAsync(status => Phase(status) == "pre_copy", "pre-copy");
        migrate.Signal(signal);
        await migrate.WaitForExitAsync();
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    private static string? Phase(JsonElement status) =>
        status.TryGetProperty("migration", out JsonElement migration) ? migration.GetProperty("phase").GetString() : null;
}
