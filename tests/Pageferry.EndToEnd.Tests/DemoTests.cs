using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>The demo as <c>dotnet run</c> has it, so with what the runtime compiles while guests run.</summary>
public sealed class DemoTests
{
    public static TheoryData<string, int, string, string> Guests => new MatrixTheoryData<string, int, string, string>(
        ["stamp", "random"], [1, 2], ["memfd", "anonymous"], ["64M", "1G"]);

    [Theory]
    [MemberData(nameof(Guests))]
    public async Task A_guest_under_kvm_moves_and_finds_no_page_wrong(string guest, int vcpus, string backing, string memory)
    {
        KvmDevice.SkipIfMissing();

        JsonElement report = await RunAsync("--guest", guest, "--vcpus", $"{vcpus}", "--backing", backing, "--memory", memory, "--host", "kvm");
        Assert.Equal("kvm", report.GetProperty("host").GetString());
    }

    public static TheoryData<string, string, string> Deliveries => new MatrixTheoryData<string, string, string>(
        ["memfd", "anonymous", "memfd-2m"], ["queue", "exit"], ["user", "kernel"]);

    [Theory]
    [MemberData(nameof(Deliveries))]
    public async Task Each_delivery_moves_a_guest_on_each_backing_at_each_privilege(string backing, string delivery, string privilege)
    {
        KvmDevice.SkipIfMissing();
        using var hugePages = new HugePages();

        // What runs at CPL 0 is emulated on a software KVM, instruction by instruction.
        string memory = privilege == "user" ? "64M" : "8M";
        JsonElement report = await RunAsync(
            "--guest", "random", "--vcpus", "2", "--backing", backing, "--delivery", delivery, "--privilege", privilege, "--memory", memory, "--host", "kvm");
        Assert.Equal(delivery, report.GetProperty("delivery").GetString());
        Assert.Equal(backing, report.GetProperty("backing").GetString());
    }

    [Theory]
    [InlineData("stamp", "memfd")]
    [InlineData("random", "anonymous")]
    public async Task A_guest_of_threads_moves_and_finds_no_page_wrong(string guest, string backing)
    {
        JsonElement report = await RunAsync("--guest", guest, "--vcpus", "2", "--backing", backing, "--memory", "64M", "--host", "threads");
        Assert.Equal("threads", report.GetProperty("host").GetString());
    }

    [Fact]
    public async Task Without_json_it_shows_what_happens_and_ends_with_the_table()
    {
        using PageferryProcess demo = await RunToEndAsync("demo", "--memory", "64M");
        Assert.Equal(0, demo.ExitCode);
        Assert.Empty(demo.Errors);
        foreach (string label in (string[])["downtime", "total time", "demand faults", "fault latency", "background", "bytes sent"])
        {
            Assert.Contains(label, demo.Output, StringComparison.Ordinal);
        }

        Assert.Matches(@"[\d,]+ pages checked by the guest, 0 wrong\n$", demo.Output);
        Assert.All(demo.Output.Split('\n'), line => Assert.True(line.TrimEnd().Length <= 80, line));
    }

    [Fact]
    public async Task It_runs_under_the_dotnet_command_too()
    {
        using PageferryProcess demo = await PageferryProcess.RunProgramAsync("dotnet", $"{PageferryProcess.Built}.dll", "demo", "--memory", "64M", "--json");
        Assert.Equal(0, demo.ExitCode);
        DemoReport.Check(demo.Output);
    }

    [Fact]
    public async Task A_guest_that_is_not_there_is_named_and_nothing_stays_behind()
    {
        using PageferryProcess demo = await RunToEndAsync("demo", "--guest", "/nowhere/guest.elf", "--json");
        Assert.Equal(1, demo.ExitCode);
        using var report = JsonDocument.Parse(demo.Output);
        Assert.False(report.RootElement.GetProperty("ok").GetBoolean());
        Assert.Contains("/nowhere/guest.elf", report.RootElement.GetProperty("error").GetString(), StringComparison.Ordinal);
        Assert.Empty(Leftovers.Of(demo.Pid));
    }

    private static Task<PageferryProcess> RunToEndAsync(params string[] arguments) => PageferryProcess.RunProgramAsync(PageferryProcess.Built, arguments);

    private static async Task<JsonElement> RunAsync(params string[] options)
    {
        using PageferryProcess demo = await RunToEndAsync(["demo", "--json", .. options]);
        Assert.True(demo.ExitCode == 0, demo.Errors + demo.Output);
        return DemoReport.Check(demo.Output);
    }
}
