using System.Text.Json;

namespace Pageferry.Cli.Tests;

public sealed class BenchDemandPagingTests
{
    private const string Small = "demand-paging -b 1M";
    private const int SmallPages = 256;

    [Theory]
    [InlineData("", "queue", "memfd", "missing", "per-vcpu", 1, SmallPages)]
    [InlineData("--backing anonymous", "queue", "anonymous", "missing", "per-vcpu", 1, SmallPages)]
    [InlineData("-u minor -v 2", "queue", "memfd", "minor", "per-vcpu", 2, 2 * SmallPages)]
    [InlineData("--delivery exit -v 2", "exit", "memfd", "missing", "per-vcpu", 2, 2 * SmallPages)]
    [InlineData("--delivery exit -u minor", "exit", "memfd", "minor", "per-vcpu", 1, SmallPages)]
    [InlineData("--delivery exit --backing anonymous --userfaultfds one -v 2", "exit", "anonymous", "missing", "one", 2, 2 * SmallPages)]
    [InlineData("--userfault missing --userfaultfds one --vcpus 2 --readers 3 --cpus 0,1", "queue", "memfd", "missing", "one", 2, 2 * SmallPages)]
    [InlineData("--userfaultfds per-vcpu -v 2 -c 0 -d 50 -r 2 --backing anonymous", "queue", "anonymous", "missing", "per-vcpu", 2, 2 * SmallPages)]
    [InlineData("--delivery none -v 2", "none", "memfd", "missing", "per-vcpu", 2, 0)]
    [InlineData("--delivery none --backing anonymous --userfaultfds one", "none", "anonymous", "missing", "one", 1, 0)]
    public async Task Each_vcpu_touches_each_page_of_its_own_once(
        string line, string delivery, string backing, string userfault, string userfaultfds, int vcpus, int userfaults)
    {
        JsonElement report = await MeasureAsync(line);
        Assert.Equal(delivery, report.GetProperty("delivery").GetString());
        JsonElement settings = report.GetProperty("settings");
        Assert.Equal(vcpus, settings.GetProperty("vcpus").GetInt32());
        Assert.Equal(1 << 20, settings.GetProperty("bytes_per_vcpu").GetInt32());
        Assert.Equal(SmallPages, settings.GetProperty("pages_per_vcpu").GetInt32());
        Assert.Equal(backing, settings.GetProperty("backing").GetString());
        Assert.Equal(userfault, settings.GetProperty("userfault").GetString());
        Assert.Equal(userfaultfds, settings.GetProperty("userfaultfds").GetString());
        Assert.Equal(userfaults, report.GetProperty("userfaults").GetInt32());
        Assert.Equal(userfaults > 0, report.TryGetProperty("engine_latency_us", out _));
        Assert.Equal(vcpus * SmallPages, Touches(report));
        Assert.Equal(vcpus, report.GetProperty("vcpu_ms").GetArrayLength());

        double totalMs = report.GetProperty("total_ms").GetDouble();
        Assert.All(report.GetProperty("vcpu_ms").EnumerateArray(), ms => Assert.InRange(ms.GetDouble(), 0, totalMs));
        Assert.Equal(totalMs * 1000 / SmallPages, report.GetProperty("us_per_fault").GetDouble(), 0.01);
        double rate = report.GetProperty("pages_per_s_per_vcpu").GetDouble();
        Assert.InRange(rate * totalMs / 1000, SmallPages * 0.99, SmallPages * 1.01);
        Assert.InRange(report.GetProperty("pages_per_s").GetDouble(), (rate * vcpus) - vcpus, (rate * vcpus) + vcpus);

        // The guest's own clock and the host's agree: what all vCPUs waited is no more than the time they ran.
        JsonElement latency = report.GetProperty("latency_us");
        Assert.InRange(latency.GetProperty("p50").GetDouble(), 0, latency.GetProperty("p99").GetDouble());
        Assert.InRange(latency.GetProperty("max").GetDouble(), latency.GetProperty("p99").GetDouble(), totalMs * 1000 * 1.1);
    }

    [Theory]
    [InlineData("-o -v 3 -r 2")]
    [InlineData("--overlap --vcpus 3 -u minor -r 2")]
    [InlineData("-o -v 2 --backing anonymous --userfaultfds one")]
    public async Task Overlapping_vcpus_touch_the_same_pages(string line)
    {
        JsonElement report = await MeasureAsync(line);
        int vcpus = report.GetProperty("settings").GetProperty("vcpus").GetInt32();
        Assert.True(report.GetProperty("settings").GetProperty("overlap").GetBoolean());
        Assert.Equal("one", report.GetProperty("settings").GetProperty("userfaultfds").GetString());
        Assert.Equal(vcpus * SmallPages, Touches(report));
        Assert.InRange(report.GetProperty("userfaults").GetInt32(), SmallPages, vcpus * SmallPages);
    }

    [Fact]
    public async Task A_delay_is_what_every_fault_waits_at_least()
    {
        const int DelayUs = 500;
        JsonElement report = await MeasureAsync($"-d {DelayUs}");
        Assert.True(report.GetProperty("us_per_fault").GetDouble() > DelayUs);
        Assert.True(report.GetProperty("engine_latency_us").GetProperty("p50").GetDouble() > DelayUs);
        Assert.Equal(DelayUs, report.GetProperty("settings").GetProperty("delay_us").GetDouble());

        // Counted within 6 %.
        Assert.All(
            report.GetProperty("histogram").EnumerateArray().Where(bar => bar.GetProperty("count").GetInt32() > 0),
            bar => Assert.True(bar.GetProperty("to_us").GetDouble() > DelayUs));
    }

    [Fact]
    public async Task A_size_that_is_no_power_of_two_is_touched_whole()
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess bench = await RunAsync("demand-paging -b 20K -v 3 --json");
        using var report = JsonDocument.Parse(bench.Output);
        Assert.Equal(15, Touches(report.RootElement));
        using PageferryProcess overlapping = await RunAsync("demand-paging -b 20K -v 3 -o --json");
        using var shared = JsonDocument.Parse(overlapping.Output);
        Assert.Equal(15, Touches(shared.RootElement));
    }

    [Fact]
    public async Task A_comparison_alternates_the_deliveries_and_gives_medians_and_ratios()
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess bench = await RunAsync($"{Small} --compare --json");
        Assert.Equal(0, bench.ExitCode);
        using var report = JsonDocument.Parse(bench.Output);
        JsonElement root = report.RootElement;
        Assert.True(root.GetProperty("ok").GetBoolean());
        Assert.Equal(5, root.GetProperty("rounds").GetInt32());
        JsonElement[] deliveries = [.. root.GetProperty("deliveries").EnumerateArray()];
        Assert.Equal(["none", "queue", "exit"], deliveries.Select(delivery => delivery.GetProperty("delivery").GetString()!), StringComparer.Ordinal);
        Assert.All(deliveries, delivery =>
        {
            double[] rounds = [.. delivery.GetProperty("us_per_fault").EnumerateArray().Select(us => us.GetDouble()).Order()];
            Assert.Equal(5, rounds.Length);
            Assert.Equal(rounds[2], delivery.GetProperty("median_us_per_fault").GetDouble());
        });
        JsonElement ratio = root.GetProperty("ratios").EnumerateArray().Single(ratio => ratio.GetProperty("delivery").GetString() == "queue" && ratio.GetProperty("to").GetString() == "none");
        Assert.Equal(
            deliveries[1].GetProperty("median_us_per_fault").GetDouble() / deliveries[0].GetProperty("median_us_per_fault").GetDouble(),
            ratio.GetProperty("ratio").GetDouble(),
            0.001);
    }

    [Theory]
    [InlineData($"{Small} -v 2 -d 20 -c 0,1 -r 2", "pages/s")]
    [InlineData($"{Small} --delivery none", "pages/s")]
    [InlineData($"{Small} --compare --rounds 6 --backing anonymous", "medians of 6 rounds")]
    public async Task Text_fits_80_columns(string line, string contains)
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess bench = await RunAsync(line);
        Assert.Equal(0, bench.ExitCode);
        Assert.Contains(contains, bench.Output, StringComparison.Ordinal);
        Assert.All(bench.Output.Split('\n'), text => Assert.True(text.Length <= 80, text));
        Assert.Empty(bench.Errors);
    }

    [Theory]
    [InlineData("-v none", "is not a number of virtual CPUs")]
    [InlineData("-v 65", "at most 64")]
    [InlineData("-b 0", "is zero")]
    [InlineData("-b 5000b", "not a multiple of the page size")]
    [InlineData("-b 4T", "more memory than a guest here can have")]
    [InlineData("-v 64 -b 1000000T", "more memory than a guest here can have")]
    [InlineData("--backing paper", "Choose one of: memfd, memfd-2m, anonymous")]
    [InlineData("-u major", "Choose one of: missing, minor")]
    [InlineData("--delivery pigeon", "Choose one of: none, queue, exit")]
    [InlineData("--userfaultfds two", "Choose one of: one, per-vcpu")]
    [InlineData("-r 0", "Write a whole number from 1 to 64")]
    [InlineData("-d -1", "Write a whole number from 0 to 10000000")]
    [InlineData("-c 0,x", "is not a list of CPUs")]
    [InlineData("-c 1024", "is not a list of CPUs")]
    [InlineData("--compare --rounds 4", "Write a whole number from 5 to 1000")]
    [InlineData("--rounds 5", "--rounds is for --compare")]
    [InlineData("--compare --delivery queue", "leave out --delivery")]
    [InlineData("--delivery none -u missing", "leave out --userfault")]
    [InlineData("--delivery none -r 1", "leave out --readers")]
    [InlineData("--delivery none -d 1", "leave out --delay")]
    [InlineData("-u minor --backing anonymous", "choose --backing memfd")]
    [InlineData("-u minor -d 5", "leave out --delay")]
    [InlineData("-o --userfaultfds per-vcpu", "leave out --userfaultfds per-vcpu")]
    public async Task What_can_not_be_measured_is_a_usage_error(string line, string reason)
    {
        using PageferryProcess bench = await RunAsync($"demand-paging {line}");
        Assert.Equal(2, bench.ExitCode);
        Assert.StartsWith("pageferry: ", bench.Errors, StringComparison.Ordinal);
        Assert.Contains(reason, bench.Errors, StringComparison.Ordinal);
        Assert.Empty(bench.Output);
    }

    [Theory]
    [InlineData("-c 1023", "CPU 1023")]
    [InlineData("-c 0,1023", "CPU 1023")]
    [InlineData("-b 126G", "are available here")]
    public async Task What_this_machine_can_not_do_is_a_failure_that_names_it(string line, string reason)
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess bench = await RunAsync($"demand-paging {line} --json");
        Assert.Equal(1, bench.ExitCode);
        Assert.Contains(reason, bench.Errors, StringComparison.Ordinal);
        using var report = JsonDocument.Parse(bench.Output);
        Assert.False(report.RootElement.GetProperty("ok").GetBoolean());
        Assert.Contains(reason, report.RootElement.GetProperty("error").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_permission_it_names_what_is_missing()
    {
        KvmDevice.SkipIfMissing();
        using UnprivilegedPageferry unprivileged = UnprivilegedPageferry.OrSkip();
        using PageferryProcess bench = await unprivileged.RunAsync("bench", "demand-paging", "-b", "1M");
        Assert.Equal(1, bench.ExitCode);
        Assert.Contains("/dev/kvm", bench.Errors, StringComparison.Ordinal);
        Assert.Contains("EACCES", bench.Errors, StringComparison.Ordinal);
    }

    private static Task<PageferryProcess> RunAsync(string line) => PageferryProcess.RunAsync(["bench", .. line.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);

    private static async Task<JsonElement> MeasureAsync(string line)
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess bench = await RunAsync($"{Small} {line} --json");
        Assert.True(bench.ExitCode == 0, bench.Errors);
        using var report = JsonDocument.Parse(bench.Output);
        Assert.True(report.RootElement.GetProperty("ok").GetBoolean());
        Assert.Equal(File.ReadAllText("/proc/sys/kernel/osrelease").Trim(), report.RootElement.GetProperty("kernel").GetString());
        return report.RootElement.Clone();
    }

    private static int Touches(JsonElement report) => report.GetProperty("histogram").EnumerateArray().Sum(bar => bar.GetProperty("count").GetInt32());
}
