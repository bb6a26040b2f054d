using System.Diagnostics;
using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

[Collection(nameof(Alone))]
public sealed class TortureTests
{
    private static readonly string[] s_harms = ["lost", "wrong_bytes", "both_running"];

    [Fact]
    public async Task No_guest_is_harmed_by_any_scenario()
    {
        const int Scenarios = 13;
        const int Each = 8;
        using PageferryProcess torture = PageferryProcess.Start("torture", "--seed", "4710", "--count", $"{Each * Scenarios}", "--memory", "16M", "--json");
        await torture.WaitForExitAsync(TimeSpan.FromMinutes(15));
        Assert.True(torture.ExitCode == 0, torture.Errors + torture.Output);
        using var report = JsonDocument.Parse(torture.Output);
        JsonElement total = report.RootElement.GetProperty("total");
        Assert.True(report.RootElement.GetProperty("ok").GetBoolean());
        Assert.Equal(Each * Scenarios, total.GetProperty("runs").GetInt32());
        Assert.All(s_harms, harm => Assert.Equal(0, total.GetProperty(harm).GetInt32()));

        // What never began harmed nobody, and shows nothing.
        Assert.InRange(total.GetProperty("recovered").GetInt32(), 1, Each * Scenarios);
        JsonElement[] rows = [.. report.RootElement.GetProperty("scenarios").EnumerateArray()];
        Assert.Equal(Scenarios, rows.Length);
        Assert.All(rows, row => Assert.Equal(Each, row.GetProperty("runs").GetInt32()));
        Assert.Empty(Leftovers.Of(torture.Pid, "torture"));
    }

    [Fact]
    public async Task A_destination_is_killed_and_the_guest_moves_to_another()
    {
        using PageferryProcess torture = await PageferryProcess.RunAsync(
            "torture", "--seed", "1", "--count", "1", "--memory", "16M", "--modes", "kill-destination", "--mode", "postcopy", "--json");
        Assert.True(torture.ExitCode == 0, torture.Errors + torture.Output);
        using var report = JsonDocument.Parse(torture.Output);
        Assert.Equal(1, report.RootElement.GetProperty("total").GetProperty("failed_before_switchover").GetInt32());
    }

    [Fact]
    public async Task An_engine_is_killed_after_the_switchover_and_the_guest_goes_on()
    {
        using PageferryProcess torture = await PageferryProcess.RunAsync(
            "torture", "--seed", "2", "--count", "3", "--memory", "32M", "--modes", "kill-engine", "--mode", "postcopy", "--json");
        Assert.True(torture.ExitCode == 0, torture.Errors + torture.Output);
        using var report = JsonDocument.Parse(torture.Output);
        JsonElement total = report.RootElement.GetProperty("total");
        Assert.All(s_harms, harm => Assert.Equal(0, total.GetProperty(harm).GetInt32()));
        Assert.InRange(total.GetProperty("reconnects").GetInt32(), 1, int.MaxValue);
    }

    [Fact]
    public async Task A_destination_is_killed_with_the_guest_which_goes_back_and_moves_to_another()
    {
        using PageferryProcess torture = await PageferryProcess.RunAsync("torture", "--seed", "3", "--count", "2", "--memory", "16M", "--modes", "kill-arrived", "--json");
        Assert.True(torture.ExitCode == 0, torture.Errors + torture.Output);
        using var report = JsonDocument.Parse(torture.Output);
        Assert.InRange(report.RootElement.GetProperty("total").GetProperty("rolled_back").GetInt32(), 1, 2);
    }

    [Fact]
    public async Task A_source_is_killed_after_the_switchover_and_another_process_serves_for_it()
    {
        using PageferryProcess torture = await PageferryProcess.RunAsync("torture", "--seed", "5", "--count", "3", "--memory", "32M", "--modes", "kill-source", "--json");
        Assert.True(torture.ExitCode == 0, torture.Errors + torture.Output);
        using var report = JsonDocument.Parse(torture.Output);
        JsonElement total = report.RootElement.GetProperty("total");
        Assert.All(s_harms, harm => Assert.Equal(0, total.GetProperty(harm).GetInt32()));
        Assert.InRange(total.GetProperty("recovered_by_command").GetInt32(), 1, 3);
        Assert.Empty(Leftovers.Of(torture.Pid, "torture"));
    }

    [Fact]
    public async Task A_plan_follows_from_its_seed_and_the_table_fits()
    {
        string[] plans = new string[2];
        for (int i = 0; i < plans.Length; i++)
        {
            using PageferryProcess torture = await PageferryProcess.RunAsync("torture", "--seed", "7", "--count", "2", "--memory", "8M", "--modes", "delay,cut-one");
            Assert.True(torture.ExitCode == 0, torture.Errors + torture.Output);
            Assert.All(torture.Output.Split('\n'), line => Assert.True(line.Length <= 80, line));
            plans[i] = string.Join('\n', torture.Errors.Split('\n').Select(line => line.Length > 40 ? line[..40] : line));
        }

        Assert.Equal(plans[0], plans[1]);
        Assert.Contains("cut-one", plans[0], StringComparison.Ordinal);
        Assert.Contains("delay", plans[0], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("KILL")]
    [InlineData("INT")]
    public async Task However_it_ends_its_processes_and_sockets_go_with_it(string signal)
    {
        using PageferryProcess torture = PageferryProcess.Start("torture", "--memory", "256M", "--modes", "stop-source,stop-destination");
        await torture.WaitUntilAsync(() => Leftovers.Of(torture.Pid, "torture").Length == 3, "both processes");
        torture.Signal(signal);
        await torture.WaitForExitAsync();
        Assert.NotEqual(0, torture.ExitCode);
        var clock = Stopwatch.StartNew();
        while (Leftovers.Of(torture.Pid, "torture").Length > 0 && clock.Elapsed < TimeSpan.FromSeconds(10))
        {
            await Task.Delay(50);
        }

        // A directory of a process that was killed stays until its children have left it.
        Assert.Empty(Leftovers.Of(torture.Pid, "torture"));
    }

    [Theory]
    [InlineData("cut", "--seed", "-1")]
    [InlineData("cut", "--seed", "often")]
    [InlineData("cut", "--count", "0")]
    [InlineData("cut", "--minutes", "0")]
    [InlineData("cut,burn", "--count", "1")]
    [InlineData(",", "--count", "1")]
    [InlineData("cut", "--mode", "sometimes")]
    [InlineData("cut", "--memory", "none")]
    public async Task What_can_not_be_done_is_refused(string modes, string option, string value)
    {
        using PageferryProcess torture = await PageferryProcess.RunAsync("torture", "--modes", modes, option, value);
        Assert.Equal(2, torture.ExitCode);
        Assert.Empty(torture.Output);
        Assert.Contains("pageferry torture --help", torture.Errors, StringComparison.Ordinal);
    }
}
