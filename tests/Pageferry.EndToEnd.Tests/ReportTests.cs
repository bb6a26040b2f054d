using System.Text.Json;
using System.Xml;
using System.Xml.Linq;

namespace Pageferry.EndToEnd.Tests;

public sealed class ReportTests : IDisposable
{
    private static readonly string[] s_kinds = ["precopy", "demand", "background", "zero"];

    private readonly TemporaryDirectory _directory = new();

    private string Source => _directory.Path("source.html");

    private string Destination => _directory.Path("destination.html");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("auto", "inside")]
    [InlineData("precopy", "inside")]
    [InlineData("postcopy", "inside")]
    [InlineData("auto", "separate")]
    [InlineData("postcopy", "separate")]
    public async Task Both_sides_write_what_moved_and_agree_on_it(string mode, string engine)
    {
        using GuestProcess source = await GuestProcess.RunAsync(_directory.Path("a.sock"), "--memory", "64M");
        using GuestProcess destination = await ReceiveAsync("--engine", engine);
        await source.MakePassesAsync(1);
        using PageferryProcess migrate = await MigrateAsync(destination, "--mode", mode, "--downtime-limit", "2s", "--validate");
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        Assert.Contains($"The report is in {Source}.", migrate.Output, StringComparison.Ordinal);
        _ = await destination.WaitAsync(status => status.GetProperty("migration").TryGetProperty("report", out _), "the destination's report");

        using JsonDocument sent = Read(Source);
        using JsonDocument received = Read(Destination);
        JsonElement from = sent.RootElement.GetProperty("status").GetProperty("migration");
        JsonElement to = received.RootElement.GetProperty("status").GetProperty("migration");
        Assert.Equal("completed", from.GetProperty("phase").GetString());
        Assert.Equal("completed", to.GetProperty("phase").GetString());
        Assert.Equal(sent.RootElement.GetProperty("guest").GetGuid(), received.RootElement.GetProperty("guest").GetGuid());
        Assert.Equal(mode, sent.RootElement.GetProperty("options").GetProperty("mode").GetString());
        foreach (string kind in s_kinds)
        {
            long pages = from.GetProperty($"pages_{kind}").GetInt64();
            Assert.Equal(pages, to.GetProperty($"pages_{kind}").GetInt64());
            foreach (JsonDocument side in (JsonDocument[])[sent, received])
            {
                // What was counted while it went, by time and by range, is what was counted in the end.
                Assert.Equal(pages, side.RootElement.GetProperty("samples").GetProperty($"pages_{kind}").EnumerateArray().Last().GetInt64());
                Assert.Equal(pages, side.RootElement.GetProperty("map").GetProperty(kind).EnumerateArray().Where((_, i) => i % 3 == 2).Sum(value => value.GetInt64()));
            }
        }

        Assert.Equal(mode == "postcopy", from.GetProperty("pages_precopy").GetInt64() == 0);
        Assert.Contains(sent.RootElement.GetProperty("moments").EnumerateArray(), moment => moment.TryGetProperty("decision", out _));
        long faults = received.RootElement.GetProperty("faults").EnumerateArray().Where(cause => cause.GetProperty("cause").GetString() is "demand" or "arriving").Sum(cause => cause.GetProperty("count").GetInt64());
        Assert.Equal(to.GetProperty("demand_faults").GetInt64(), faults);
        Assert.Equal(2, Directory.GetFiles(_directory.Path(string.Empty), "*.html*").Length);
    }

    [Theory]
    [InlineData("inside")]
    [InlineData("separate")]
    public async Task A_cancelled_migration_has_reports_and_the_next_one_replaces_them(string engine)
    {
        using GuestProcess source = await GuestProcess.RunAsync(_directory.Path("a.sock"), "--memory", "64M");
        using GuestProcess destination = await ReceiveAsync("--engine", engine);
        await source.MakePassesAsync(1);
        using (PageferryProcess migrate = PageferryProcess.Start([.. Migrate(destination), "--max-bandwidth", "4M"]))
        {
            _ = await source.WaitAsync(status => status.TryGetProperty("migration", out JsonElement now) && now.GetProperty("pages_precopy").GetInt64() > 500, "some pages to go");
            using PageferryProcess cancel = await PageferryProcess.RunAsync("vm", "cancel", "--control", _directory.Path("a.sock"));
            Assert.True(cancel.ExitCode == 0, cancel.Errors);
            await migrate.WaitForExitAsync();
            Assert.Equal(1, migrate.ExitCode);
            Assert.Contains($"The report is in {Source}.", migrate.Errors, StringComparison.Ordinal);
        }

        Assert.Equal(("cancelled", true), Outcome(Source));
        await destination.Process.WaitUntilAsync(() => File.Exists(Destination), "the destination's report");
        Assert.Equal(("failed", true), Outcome(Destination));

        using PageferryProcess again = await MigrateAsync(destination);
        Assert.True(again.ExitCode == 0, again.Errors);
        _ = await destination.WaitForStateAsync("running");
        Assert.Equal(("completed", false), Outcome(Source));
        await destination.Process.WaitUntilAsync(() => Outcome(Destination) == ("completed", false), "the destination's second report");
    }

    [Fact]
    public async Task A_migration_that_can_not_be_reported_is_not_begun()
    {
        using GuestProcess source = await GuestProcess.RunAsync(_directory.Path("a.sock"), "--memory", "16M");
        using GuestProcess destination = await ReceiveAsync();
        string missing = _directory.Path("missing/report.html");
        using PageferryProcess migrate = await PageferryProcess.RunAsync("vm", "migrate", "--control", _directory.Path("a.sock"), "--to", destination.Endpoint, "--report", missing);
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains($"Could not write a report to {missing}", migrate.Errors, StringComparison.Ordinal);
        Assert.Equal("running", source.State);
        Assert.Equal("waiting", destination.State);
    }

    [Fact]
    public async Task The_demo_writes_a_report_of_each_side()
    {
        string report = _directory.Path("demo.html");
        using PageferryProcess demo = await PageferryProcess.RunAsync("demo", "--memory", "32M", "--report", report);
        Assert.True(demo.ExitCode == 0, demo.Errors);
        Assert.Equal(("completed", false), Outcome(_directory.Path("demo.source.html")));
        Assert.Equal(("completed", false), Outcome(_directory.Path("demo.destination.html")));
    }

    private static (string? Phase, bool HasError) Outcome(string path)
    {
        using JsonDocument report = Read(path);
        return (report.RootElement.GetProperty("status").GetProperty("migration").GetProperty("phase").GetString(), report.RootElement.TryGetProperty("error", out _));
    }

    internal static JsonDocument Read(string path)
    {
        using var reader = XmlReader.Create(path, new XmlReaderSettings { DtdProcessing = DtdProcessing.Ignore, XmlResolver = null });
        return JsonDocument.Parse(XDocument.Load(reader).Descendants().Single(element => element.Name.LocalName == "script").Value);
    }

    private Task<GuestProcess> ReceiveAsync(params string[] options) => GuestProcess.ReceiveAsync(_directory.Path("b.sock"), ["--report", Destination, .. options]);

    private string[] Migrate(GuestProcess to) => ["vm", "migrate", "--control", _directory.Path("a.sock"), "--to", to.Endpoint, "--report", Source];

    private Task<PageferryProcess> MigrateAsync(GuestProcess to, params string[] options) => PageferryProcess.RunAsync([.. Migrate(to), .. options]);
}
