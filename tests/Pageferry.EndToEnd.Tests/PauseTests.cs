using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A guest stands still when its operator says so, wherever it is.</summary>
public sealed class PauseTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("kvm")]
    [InlineData("threads")]
    public async Task A_guest_stands_still_until_it_is_resumed(string host)
    {
        KvmDevice.SkipIfMissing(host);
        using GuestProcess guest = await GuestProcess.RunAsync(A, "--memory", "16M", "--host", host, "--vcpus", "2");
        await guest.MakePassesAsync(1);
        Assert.Contains("The guest stands still (paused)", await AskAsync("pause", A), StringComparison.Ordinal);
        ulong passes = await PassesOfAGuestThatStandsStillAsync(guest);
        Assert.Equal("paused", guest.State);

        // It stands still already: what was asked for is so.
        Assert.Contains("The guest stands still (paused)", await AskAsync("pause", A), StringComparison.Ordinal);
        Assert.Contains("The guest goes on (running)", await AskAsync("resume", A), StringComparison.Ordinal);
        Assert.Contains("The guest goes on (running)", await AskAsync("resume", A), StringComparison.Ordinal);
        await guest.MakePassesAsync(2);
        Assert.True(guest.Status().GetProperty("passes").GetUInt64() > passes);
    }

    [Theory]
    [InlineData("auto")]
    [InlineData("postcopy")]
    public async Task A_paused_guest_moves_and_arrives_paused(string mode)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        await AskAsync("pause", A);
        using (PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint, "--mode", mode, "--validate"))
        {
            Assert.True(migrate.ExitCode == 0, migrate.Errors);
            Assert.Contains($"The guest stands still at {destination.Endpoint} and has all its memory", migrate.Output, StringComparison.Ordinal);
        }

        await destination.WaitForStateAsync("paused");
        ulong passes = await PassesOfAGuestThatStandsStillAsync(destination);
        Assert.True(passes > 0);
        await AskAsync("resume", B);
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_guest_paused_while_it_leaves_arrives_paused()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "precopy", "--max-bandwidth", "32M");
        await source.WaitAsync(InPreCopy, "pre-copy");
        await AskAsync("pause", A);
        JsonElement status = source.Status();
        Assert.Equal("leaving", status.GetProperty("state").GetString());
        Assert.True(status.GetProperty("paused").GetBoolean());

        // It writes nothing any more, so pre-copy converges.
        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.WaitForStateAsync("paused");
        await AskAsync("resume", B);
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_guest_paused_while_its_memory_arrives_gets_all_of_it_and_stands_still()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "6M");
        await destination.WaitForStateAsync("arriving");
        Assert.Contains("The guest stands still (arriving)", await AskAsync("pause", B), StringComparison.Ordinal);

        // Where it came from, it isn't there to be paused.
        using (PageferryProcess pause = await PageferryProcess.RunAsync("vm", "pause", "--control", A))
        {
            Assert.Equal(1, pause.ExitCode);
            Assert.Contains("Could not pause the guest", pause.Errors, StringComparison.Ordinal);
        }

        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.WaitForStateAsync("paused");
        await AskAsync("resume", B);
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_paused_guest_whose_migration_is_cancelled_stands_still_until_it_is_resumed()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        await AskAsync("pause", A);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--max-bandwidth", "4M");
        await source.WaitAsync(InPreCopy, "pre-copy");
        await AskAsync("cancel", A);
        await migrate.WaitForExitAsync();
        Assert.Equal("paused", source.State);
        await AskAsync("resume", A);
        await source.MakePassesAsync(2);
    }

    [Fact]
    public async Task Where_no_guest_is_there_is_none_to_pause()
    {
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess pause = await PageferryProcess.RunAsync("vm", "pause", "--control", B);
        Assert.Equal(1, pause.ExitCode);
        Assert.Contains("Could not pause the guest: no guest has arrived here yet.", pause.Errors, StringComparison.Ordinal);
    }

    private static bool InPreCopy(JsonElement status) =>
        status.TryGetProperty("migration", out JsonElement migration) && migration.GetProperty("phase").GetString() == "pre_copy";

    private static async Task<string> AskAsync(string command, string control)
    {
        using PageferryProcess asked = await PageferryProcess.RunAsync("vm", command, "--control", control);
        Assert.True(asked.ExitCode == 0, asked.Errors);
        return asked.Output;
    }

    /// <summary>How many passes it has made, after a while in which it makes none.</summary>
    private static async Task<ulong> PassesOfAGuestThatStandsStillAsync(GuestProcess guest)
    {
        ulong before = guest.Status().GetProperty("pages_checked").GetUInt64();
        await Task.Delay(500);
        JsonElement status = guest.Status();
        Assert.Equal(before, status.GetProperty("pages_checked").GetUInt64());
        return status.GetProperty("passes").GetUInt64();
    }
}
