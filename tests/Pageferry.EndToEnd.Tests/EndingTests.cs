using System.Net;
using System.Text.Json;
using Pageferry.Migration.Tests;
using static Pageferry.EndToEnd.Tests.Command;

namespace Pageferry.EndToEnd.Tests;

/// <summary>What becomes of a guest when one of its processes is told to end while it moves.</summary>
public sealed class EndingTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    private string Holder => _directory.Path("holder.sock");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("INT")]
    [InlineData("TERM")]
    [InlineData("HUP")]
    public async Task A_source_that_is_needed_says_so_when_it_is_told_to_end_and_serves_on(string signal)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint, "16M");
        await FailAsync("It would stall there for good", "vm", "stop", "--control", A);
        source.Process.Signal(signal);
        await source.Process.WaitUntilAsync(() => source.Process.Output.Contains("Told to end.", StringComparison.Ordinal), "the warning");
        Assert.Contains($"The guest at {destination.Endpoint} lacks up to ", source.Process.Output, StringComparison.Ordinal);
        await source.Process.WaitForExitAsync();
        Assert.Equal(0, source.Process.ExitCode);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_source_whose_terminal_is_closed_serves_on()
    {
        using GuestProcess source = await GuestProcess.RunOnTerminalAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint, "16M");
        source.Process.Signal("KILL");
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_source_that_is_told_to_end_twice_ends()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint, "2M");
        source.Process.Signal("TERM");
        await source.Process.WaitUntilAsync(() => source.Process.Output.Contains("told once more, it ends", StringComparison.Ordinal), "the warning");
        Assert.Equal("leaving", source.State);
        source.Process.Signal("TERM");
        await source.Process.WaitForExitAsync();
        Assert.Equal(130, source.Process.ExitCode);
        Assert.False(Path.Exists(A));
    }

    [Fact]
    public async Task A_source_that_lost_its_destination_is_stopped_by_whoever_agrees_to_the_price()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, $"{relay.EndPoint}", "2M", "--reconnect-for", "200ms");
        relay.IsRefusing = true;
        relay.Cut();
        await source.WaitForStateAsync("stalled");
        await FailAsync("Say --yes to end it all the same", "vm", "stop", "--control", A);
        Assert.Equal("stalled", source.State);
        await DoAsync("vm", "stop", "--control", A, "--yes");
        await source.Process.WaitForExitAsync();
        Assert.Equal(0, source.Process.ExitCode);
    }

    [Theory]
    [InlineData("inside")]
    [InlineData("separate")]
    public async Task A_destination_with_a_part_of_a_guest_ends_when_it_is_told_twice(string engine)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", engine);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint, "2M");
        await FailAsync("The guest here is not whole", "vm", "stop", "--control", B);
        destination.Process.Signal("INT");
        await destination.Process.WaitUntilAsync(() => destination.Process.Output.Contains("told once more, it ends", StringComparison.Ordinal), "the warning");
        Assert.Contains("recover rollback --destination-is-fenced", destination.Process.Output, StringComparison.Ordinal);
        JsonElement status = destination.Status();
        Assert.Equal("arriving", status.GetProperty("state").GetString());
        if (engine == "separate")
        {
            // As a terminal's Ctrl-C does, it reaches the engine too.
            PageferryProcess.Signal(status.GetProperty("engine").GetProperty("pid").GetInt32(), "INT");
            await Task.Delay(500);
            Assert.Equal(0, destination.Status().GetProperty("engine").GetProperty("restarts").GetInt32());
        }

        destination.Process.Signal("INT");
        await destination.Process.WaitForExitAsync();
        Assert.Equal(130, destination.Process.ExitCode);

        // As it said: the source has what is needed to go back.
        await source.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused", "the source to notice");
        await DoAsync("recover", "rollback", "--control", A, "--destination-is-fenced", "--yes");
        await source.MakePassesAsync(2);
        await DoAsync("vm", "stop", "--control", A);
        await source.Process.WaitForExitAsync();
    }

    [Fact]
    public async Task A_source_with_a_holder_says_who_can_go_on_for_it()
    {
        using PageferryProcess hold = PageferryProcess.Start("hold", "--socket", Holder);
        await hold.WaitUntilAsync(() => hold.Output.Length > 0, "the holder");
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint, "4M", "--holder", Holder);
        await FailAsync($"It would stall there until 'pageferry vm serve --holder {Holder}' has come", "vm", "stop", "--control", A);
        await DoAsync("vm", "stop", "--control", A, "--yes");
        await source.Process.WaitForExitAsync();
        using GuestProcess serving = await GuestProcess.ServeAsync(A, Holder);
        await FailAsync($"'pageferry vm serve --holder {Holder}'", "vm", "stop", "--control", A);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("stop", 0)]
    [InlineData("TERM", 130)]
    public async Task A_source_that_is_told_to_end_before_the_switchover_ends_with_its_guest(string how, int code)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "precopy", "--max-bandwidth", "8M");
        await source.WaitAsync(status => status.TryGetProperty("migration", out JsonElement moving) && moving.GetProperty("phase").GetString() == "pre_copy", "pre-copy");
        if (how == "stop")
        {
            await DoAsync("vm", "stop", "--control", A);
        }
        else
        {
            source.Process.Signal(how);
        }

        await source.Process.WaitForExitAsync();
        Assert.Equal(code, source.Process.ExitCode);
        await migrate.WaitForExitAsync();
        Assert.Equal(1, migrate.ExitCode);
        await destination.WaitAsync(status => !status.TryGetProperty("migration", out _), "the destination to discard");
        Assert.Equal("waiting", destination.State);
        await DoAsync("vm", "stop", "--control", B);
        await destination.Process.WaitForExitAsync();
        Assert.Equal(0, destination.Process.ExitCode);
    }

    /// <summary>Moves a guest, until some of its pages have followed it.</summary>
    private static async Task<PageferryProcess> MoveInPartAsync(GuestProcess source, GuestProcess destination, string to, string rate, params string[] options)
    {
        await source.MakePassesAsync(2);
        PageferryProcess migrate = source.BeginMigration(to, ["--mode", "postcopy", "--max-postcopy-bandwidth", rate, .. options]);
        await destination.WaitAsync(
            status => status.GetProperty("state").GetString() == "arriving" && status.GetProperty("migration").GetProperty("pages_done").GetUInt64() > 500, "some pages");
        return migrate;
    }
}
