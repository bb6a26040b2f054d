using System.Text.Json;

namespace Pageferry.Cli.Tests;

/// <summary>A guest whose memory is armed and disarmed while it runs.</summary>
public sealed class VmArmTests : IDisposable
{
    private const ulong Pages = 4096;

    private readonly TemporaryDirectory _directory = new();

    private string Control => _directory.Path("control.sock");

    public static TheoryData<string, string, string> Combinations => new MatrixTheoryData<string, string, string>(["kvm", "threads"], ["memfd", "anonymous"], ["queue", "exit"]);

    public void Dispose() => _directory.Dispose();

    [Theory]
    [MemberData(nameof(Combinations))]
    public async Task A_guest_gets_what_is_armed_back_as_it_was(string host, string backing, string delivery)
    {
        KvmDevice.SkipIfMissing(host);
        using PageferryProcess run = await StartAsync("random", "--vcpus", "2", "--host", host, "--backing", backing, "--delivery", delivery);
        Assert.Contains($"userfaults by {delivery}", run.Output, StringComparison.Ordinal);
        await MakePassesAsync(run, 2);
        using (PageferryProcess arm = await PageferryProcess.RunAsync("vm", "arm", "--control", Control, "--json"))
        {
            Assert.True(arm.ExitCode == 0, arm.Errors);
            using var report = JsonDocument.Parse(arm.Output);
            Assert.True(report.RootElement.GetProperty("ok").GetBoolean());
            Assert.Equal(Pages, report.RootElement.GetProperty("pages_armed").GetUInt64() + report.RootElement.GetProperty("pages_accessible").GetUInt64());
            Assert.True(report.RootElement.GetProperty("pages_armed").GetUInt64() > Pages - 100);
        }

        await MakePassesAsync(run, 2);
        JsonElement status = await StatusAsync();
        Assert.True(status.GetProperty("userfaults").GetInt64() > (long)Pages / 2, status.ToString());
        Assert.True(status.GetProperty("armed_pages").GetUInt64() < Pages / 2, status.ToString());
        Assert.Equal(delivery, status.GetProperty("delivery").GetString());
        using (PageferryProcess text = await PageferryProcess.RunAsync("vm", "status", "--control", Control))
        {
            Assert.Matches($"armed +[0-9,]+ pages, by {delivery}; [0-9,]+ userfaults answered", text.Output);
        }

        using (PageferryProcess disarm = await PageferryProcess.RunAsync("vm", "disarm", "--control", Control))
        {
            Assert.Equal(0, disarm.ExitCode);
            Assert.Contains("pages were armed and no longer are", disarm.Output, StringComparison.Ordinal);
        }

        Assert.Equal(0UL, (await StatusAsync()).GetProperty("armed_pages").GetUInt64());
        await MakePassesAsync(run, 2);
    }

    [Fact]
    public async Task Ranges_are_armed_and_disarmed_each_for_itself()
    {
        using PageferryProcess run = await StartAsync("stamp", "--host", "threads");
        await MakePassesAsync(run, 1);
        using var client = ControlClient.Connect(Control);
        ArmingReport armed = await client.ArmAsync(Arm() with { Ranges = ["8M+64K", "0xa00000+0x3000"], Semantics = "any-access", Content = "keep" }, default);
        Assert.Equal(19UL, armed.PagesArmed);
        Assert.Equal(0UL, armed.PagesAccessible);
        Assert.Null(armed.PagesDisarmed);
        ArmingReport disarmed = await client.ArmAsync(new ControlRequest { Command = ControlRequest.Disarm, Ranges = ["1M+1M"] }, default);
        Assert.Equal(0UL, disarmed.PagesDisarmed);
        await MakePassesAsync(run, 2);
    }

    [Fact]
    public async Task Ranges_that_overlap_arm_each_page_once()
    {
        using PageferryProcess run = await StartAsync("stamp", "--host", "threads");
        await MakePassesAsync(run, 1);
        await PauseAsync();
        using var client = ControlClient.Connect(Control);
        ArmingReport armed = await client.ArmAsync(Arm() with { Ranges = ["8M+8K", "8M+4K", "0x801000+12K"] }, default);
        Assert.Equal(4UL, armed.PagesArmed);
        Assert.Equal(4UL, (await client.StatusAsync(default)).ArmedPages);
    }

    [Fact]
    public async Task A_guest_that_stands_still_does_so_while_it_is_armed_and_disarmed_and_when_it_has_moved()
    {
        using PageferryProcess source = await StartAsync("random", "--host", "threads");
        string there = _directory.Path("there.sock");
        using PageferryProcess destination = PageferryProcess.Start("vm", "receive", "--listen", "127.0.0.1:0", "--control", there);
        await destination.WaitUntilAsync(() => destination.Output.Contains("Waits for a guest on", StringComparison.Ordinal) || destination.HasExited, "the destination");
        await MakePassesAsync(source, 2);
        await PauseAsync();
        ulong passes = (await StatusAsync()).GetProperty("passes").GetUInt64();
        await StandsStillAsync(Control, passes, "vm", "arm", "--control", Control);
        await StandsStillAsync(Control, passes, "vm", "disarm", "--control", Control);
        await StandsStillAsync(Control, passes, "vm", "arm", "--control", Control);
        string endpoint = (await StatusAsync(there)).GetProperty("listen").GetString()!;
        await StandsStillAsync(there, passes, "vm", "migrate", "--control", Control, "--to", endpoint);
        await StandsStillAsync(there, passes, "vm", "arm", "--control", there);
        Assert.Equal(0, await ExitCodeAsync("vm", "resume", "--control", there));
        await MakePassesAsync(destination, 2, there);
    }

    [Fact]
    public async Task First_access_counts_what_the_guest_has_used()
    {
        using PageferryProcess run = await StartAsync("stamp", "--host", "threads");
        await MakePassesAsync(run, 1);
        using PageferryProcess arm = await PageferryProcess.RunAsync("vm", "arm", "--control", Control, "--semantics", "first-access");
        Assert.Equal(0, arm.ExitCode);
        Assert.Contains("0 pages are armed, 4,096 stay accessible.", arm.Output, StringComparison.Ordinal);
        await MakePassesAsync(run, 2);
    }

    [Fact]
    public async Task Content_that_is_dropped_is_zeros_to_the_guest()
    {
        using PageferryProcess run = await StartAsync("stamp", "--host", "threads");
        await MakePassesAsync(run, 2);
        using PageferryProcess arm = await PageferryProcess.RunAsync("vm", "arm", "--control", Control, "--range", "8M+4K", "--content", "drop");
        Assert.Equal(0, arm.ExitCode);
        await run.WaitForExitAsync();
        Assert.Equal(1, run.ExitCode);
        Assert.Matches("wrong stamp in page 0x0000000000800000: expected 0x[0-9a-f]{16}, found 0x0000000000000000", run.Output);
    }

    [Theory]
    [InlineData("precopy")]
    [InlineData("postcopy")]
    public async Task A_guest_with_armed_memory_moves_and_can_be_armed_where_it_arrives(string mode)
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess source = await StartAsync("stamp", "--vcpus", "2");
        string there = _directory.Path("there.sock");
        using PageferryProcess destination = PageferryProcess.Start("vm", "receive", "--listen", "127.0.0.1:0", "--control", there);
        await destination.WaitUntilAsync(() => destination.Output.Contains("Waits for a guest on", StringComparison.Ordinal) || destination.HasExited, "the destination");
        await MakePassesAsync(source, 1);
        using (PageferryProcess refused = await PageferryProcess.RunAsync("vm", "arm", "--control", there))
        {
            Assert.Equal(1, refused.ExitCode);
            Assert.Contains("Could not arm memory of the guest: no guest has arrived here yet", refused.Errors, StringComparison.Ordinal);
        }

        Assert.Equal(0, await ExitCodeAsync("vm", "arm", "--control", Control));
        string endpoint = (await StatusAsync(there)).GetProperty("listen").GetString()!;
        using (PageferryProcess migrate = await PageferryProcess.RunAsync("vm", "migrate", "--control", Control, "--to", endpoint, "--mode", mode, "--downtime-limit", "5s"))
        {
            Assert.True(migrate.ExitCode == 0, migrate.Errors);
        }

        await source.WaitForExitAsync();
        Assert.Equal(0, source.ExitCode);
        await MakePassesAsync(destination, 1, there);
        for (int round = 0; round < 2; round++)
        {
            Assert.Equal(0, await ExitCodeAsync("vm", "arm", "--control", there));
            await MakePassesAsync(destination, 2, there);
        }

        Assert.True((await StatusAsync(there)).GetProperty("userfaults").GetInt64() > 100);
    }

    [Theory]
    [InlineData("0x100+0x1000", null, null, "not one of whole pages of 4096 bytes")]
    [InlineData("0x1000+0x10", null, null, "not one of whole pages of 4096 bytes")]
    [InlineData("0x1000+0", null, null, "is empty")]
    [InlineData("0xfffffffffffff000+0x2000", null, null, "goes beyond what 64-bit addresses reach")]
    [InlineData("15M+2M", null, null, "The range 0xf00000+0x200000 is not within the guest's memory: 0x0+0x1000000.")]
    [InlineData("1T+4K", null, null, "is not within the guest's memory")]
    [InlineData("all", null, null, "is not a range of guest physical addresses")]
    [InlineData("1M+1M", "some-access", null, "There are no semantics 'some-access'. Choose one of: any-access, first-access.")]
    [InlineData("1M+1M", null, "burn", "Content can't become 'burn'. Choose one of: keep, drop.")]
    [InlineData("1M+1M", "first-access", "keep", "Leave it out.")]
    public async Task What_makes_no_sense_is_refused_and_nothing_is_armed(string range, string? semantics, string? content, string reason)
    {
        using PageferryProcess run = await StartAsync("stamp", "--host", "threads");
        using var client = ControlClient.Connect(Control);
        CommandException refused = await Assert.ThrowsAsync<CommandException>(
            () => client.ArmAsync(Arm() with { Ranges = ["2M+4K", range], Semantics = semantics, Content = content }, default));
        Assert.Contains(reason, refused.Message, StringComparison.Ordinal);
        Assert.Null((await client.StatusAsync(default)).ArmedPages);
        await MakePassesAsync(run, 2);
    }

    [Theory]
    [InlineData("anonymous", "queue", "sysctl -w vm.unprivileged_userfaultfd=1")]
    [InlineData("anonymous", "exit", "needs a host view")]
    [InlineData("memfd", "exit", null)]
    public async Task Without_permission_it_is_refused_with_what_grants_it_or_done_without(string backing, string delivery, string? reason)
    {
        using UnprivilegedPageferry unprivileged = UnprivilegedPageferry.OrSkip();
        using PageferryProcess run = unprivileged.Start("vm", "run", "stamp", "--memory", "16M", "--host", "threads", "--backing", backing, "--delivery", delivery, "--control", unprivileged.Writable("a.sock"));
        await run.WaitUntilAsync(() => run.Output.Contains("runs on", StringComparison.Ordinal) || run.HasExited, "the guest's start");
        using PageferryProcess arm = await PageferryProcess.RunAsync("vm", "arm", "--control", unprivileged.Writable("a.sock"));
        Assert.Equal(reason is null ? 0 : 1, arm.ExitCode);
        Assert.Contains(reason ?? string.Empty, arm.Errors, StringComparison.Ordinal);
        await MakePassesAsync(run, 2, unprivileged.Writable("a.sock"));
    }

    [Fact]
    public async Task A_guest_memfd_is_a_backing_as_far_as_the_kernel_lets_it()
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess doctor = await PageferryProcess.RunAsync("doctor", "--json");
        using var report = JsonDocument.Parse(doctor.Output);
        JsonElement capability = report.RootElement.GetProperty("capabilities").EnumerateArray().Single(one => one.GetProperty("name").GetString()!.Contains("guest_memfd", StringComparison.Ordinal));
        bool available = capability.GetProperty("available").GetBoolean();
        using PageferryProcess run = await StartAsync("stamp", "--backing", "guest-memfd");
        Assert.SkipWhen(run.HasExited, run.Errors);
        await MakePassesAsync(run, 2);
        foreach (string line in (string[])[$"vm arm --control {Control}", "demo --memory 16M --backing guest-memfd", $"vm receive --listen 127.0.0.1:0 --backing guest-memfd --control {_directory.Path("b.sock")}"])
        {
            if (available && line.StartsWith("vm receive", StringComparison.Ordinal))
            {
                continue;
            }

            using PageferryProcess needs = await PageferryProcess.RunAsync(line.Split(' '));
            Assert.Equal(available ? 0 : 1, needs.ExitCode);
            Assert.True(available || needs.Errors.Contains("This kernel lacks userfaultfd on guest_memfd", StringComparison.Ordinal), needs.Errors);
        }

        await MakePassesAsync(run, 2);
    }

    private static ControlRequest Arm() => new() { Command = ControlRequest.Arm };

    private static async Task<int> ExitCodeAsync(params string[] arguments)
    {
        using PageferryProcess process = await PageferryProcess.RunAsync(arguments);
        Assert.Empty(process.Errors);
        return process.ExitCode;
    }

    private async Task PauseAsync() => Assert.Equal(0, await ExitCodeAsync("vm", "pause", "--control", Control));

    /// <summary>Runs a command, and looks whether a guest that stands still has run since.</summary>
    private async Task StandsStillAsync(string control, ulong passes, params string[] command)
    {
        using (PageferryProcess process = await PageferryProcess.RunAsync(command))
        {
            Assert.True(process.ExitCode == 0, process.Errors);
        }

        // A pass takes a few milliseconds.
        await Task.Delay(TimeSpan.FromMilliseconds(100));
        JsonElement status = await StatusAsync(control);
        Assert.Equal("paused", status.GetProperty("state").GetString());
        Assert.Equal(passes, status.GetProperty("passes").GetUInt64());
    }

    private async Task<JsonElement> StatusAsync(string? control = null)
    {
        using PageferryProcess asked = await PageferryProcess.RunAsync("vm", "status", "--control", control ?? Control, "--json");
        Assert.True(asked.ExitCode == 0, asked.Errors);
        return JsonDocument.Parse(asked.Output).RootElement;
    }

    /// <summary>Waits until the guest has made more passes, and has found nothing wrong.</summary>
    private async Task MakePassesAsync(PageferryProcess run, ulong more, string? control = null)
    {
        using var client = ControlClient.Connect(control ?? Control);
        ulong? first = null;
        VmStatus? status = null;
        await run.WaitUntilAsync(
            () =>
            {
                status = client.StatusAsync(default).GetAwaiter().GetResult();
                first ??= status.Passes ?? 0;
                return status.Passes >= first + more || status.ExitCode is not null;
            },
            $"{more} more passes");
        Assert.Equal(0UL, status!.PagesWrong);
        Assert.Null(status.ExitCode);
    }

    private async Task<PageferryProcess> StartAsync(string guest, params string[] options)
    {
        var run = PageferryProcess.Start(["vm", "run", guest, "--memory", "16M", "--control", Control, .. options]);
        await run.WaitUntilAsync(() => run.Output.Contains("runs on", StringComparison.Ordinal) || run.HasExited, "the guest's start");
        return run;
    }
}
