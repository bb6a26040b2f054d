using System.Text.Json;

namespace Pageferry.Cli.Tests;

public sealed class DoctorTests
{
    [Fact]
    public async Task Json_describes_the_machine_and_each_capability()
    {
        using PageferryProcess doctor = await PageferryProcess.RunAsync("doctor", "--json");
        using var report = JsonDocument.Parse(doctor.Output);
        JsonElement root = report.RootElement;
        Assert.Equal(root.GetProperty("ok").GetBoolean() ? 0 : 1, doctor.ExitCode);
        Assert.Equal(File.ReadAllText("/proc/sys/kernel/osrelease").Trim(), root.GetProperty("kernel").GetString());
        Assert.Equal(File.Exists("/dev/kvm"), root.GetProperty("kvm").GetProperty("present").GetBoolean());
        Assert.True(root.GetProperty("memory_bytes").GetUInt64() > root.GetProperty("memory_available_bytes").GetUInt64());
        Assert.All(root.GetProperty("capabilities").EnumerateArray(), capability =>
            Assert.NotEqual(capability.GetProperty("available").GetBoolean(), capability.TryGetProperty("reason", out _)));
    }

    [Fact]
    public async Task Text_fits_80_columns_and_names_each_capability()
    {
        using PageferryProcess doctor = await PageferryProcess.RunAsync("doctor");
        Assert.All(doctor.Output.Split('\n'), line => Assert.True(line.Length <= 80, line));
        Assert.Contains("run guests under KVM", doctor.Output, StringComparison.Ordinal);
        Assert.Contains("demo", doctor.Output, StringComparison.Ordinal);
        Assert.Contains("receive a guest into a guest_memfd", doctor.Output, StringComparison.Ordinal);
        Assert.Contains("KVM_MEM_USERFAULT", doctor.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_permission_it_names_what_is_missing_what_grants_it_and_what_works_all_the_same()
    {
        using UnprivilegedPageferry unprivileged = UnprivilegedPageferry.OrSkip();
        using PageferryProcess doctor = await unprivileged.RunAsync("doctor", "--json");
        Assert.Equal(0, doctor.ExitCode);
        using var report = JsonDocument.Parse(doctor.Output);
        Assert.True(report.RootElement.GetProperty("ok").GetBoolean());
        Assert.False(report.RootElement.GetProperty("userfaultfd").GetProperty("usable").GetBoolean());
        Assert.False(report.RootElement.GetProperty("kvm").GetProperty("usable").GetBoolean());
        string? error = report.RootElement.GetProperty("userfaultfd").GetProperty("error").GetString();
        Assert.Contains("sysctl -w vm.unprivileged_userfaultfd=1", error, StringComparison.Ordinal);

        JsonElement queue = Capability(report, "receive a guest into a memfd, userfaults by the queue");
        Assert.False(queue.GetProperty("available").GetBoolean());
        Assert.Contains("sysctl -w vm.unprivileged_userfaultfd=1", queue.GetProperty("reason").GetString(), StringComparison.Ordinal);
        Assert.True(Capability(report, "receive a guest into a memfd, userfaults as exits").GetProperty("available").GetBoolean());
        Assert.True(Capability(report, "demo").GetProperty("available").GetBoolean());
    }

    [Fact]
    public async Task Without_permission_the_demo_goes_by_exits()
    {
        using UnprivilegedPageferry unprivileged = UnprivilegedPageferry.OrSkip();
        using PageferryProcess demo = await unprivileged.RunAsync("demo", "--memory", "16M", "--json");
        Assert.True(demo.ExitCode == 0, demo.Errors);
        using var report = JsonDocument.Parse(demo.Output);
        Assert.Equal("exit", report.RootElement.GetProperty("delivery").GetString());
        Assert.Equal(0UL, report.RootElement.GetProperty("pages_wrong").GetUInt64());
    }

    [Theory]
    [InlineData("--delivery", "queue")]
    [InlineData("--backing", "anonymous")]
    public async Task Without_permission_a_demo_that_needs_it_says_which_command_grants_it_and_what_does_without(string option, string value)
    {
        using UnprivilegedPageferry unprivileged = UnprivilegedPageferry.OrSkip();
        using PageferryProcess demo = await unprivileged.RunAsync("demo", "--memory", "64M", option, value);
        Assert.Equal(1, demo.ExitCode);
        Assert.Contains("EPERM", demo.Errors, StringComparison.Ordinal);
        Assert.Contains("sysctl -w vm.unprivileged_userfaultfd=1", demo.Errors, StringComparison.Ordinal);
        Assert.Contains("--backing memfd --delivery exit", demo.Errors, StringComparison.Ordinal);
    }

    private static JsonElement Capability(JsonDocument report, string name) =>
        Assert.Single(report.RootElement.GetProperty("capabilities").EnumerateArray(), capability => capability.GetProperty("name").GetString() == name);
}
