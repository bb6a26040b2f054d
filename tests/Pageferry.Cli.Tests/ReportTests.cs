using System.Text.Json;
using System.Text.RegularExpressions;
using System.Xml;
using System.Xml.Linq;

namespace Pageferry.Cli.Tests;

public sealed class ReportTests
{
    private const string Hostile = "</script><script>alert(1)</script> <img src=x onerror=\"y\"> & ' ]]> <!-- \0\u001b[2J \ud800 \uffff 😀";

    private static readonly XNamespace s_html = "http://www.w3.org/1999/xhtml";

    [Fact]
    public void The_page_parses_and_has_the_numbers_of_the_status()
    {
        MigrationReport report = Report("source");
        XElement page = Parse(ReportPage.Of(report));
        string text = string.Join(' ', page.Element(s_html + "body")!.DescendantNodes().OfType<XText>().Where(node => node.Parent!.Name != s_html + "script").Select(node => node.Value));
        foreach (string number in (string[])["1,300", "77", "8,123", "41", "987,654,321", "12.3 ms", "2,500 ms", "30 %", "17 rounds"])
        {
            Assert.Contains(number, text, StringComparison.Ordinal);
        }

        using var data = JsonDocument.Parse(DataOf(page));
        JsonElement migration = data.RootElement.GetProperty("status").GetProperty("migration");
        Assert.Equal(1300, migration.GetProperty("pages_precopy").GetInt32());
        Assert.Equal(77, migration.GetProperty("pages_demand").GetInt32());
        Assert.Equal(12.345, migration.GetProperty("downtime_ms").GetDouble());
        Assert.Equal([0.0, 1000.0, 2500.0], data.RootElement.GetProperty("samples").GetProperty("at_ms").EnumerateArray().Select(value => value.GetDouble()));
        Assert.Equal([1, 0, 1300], data.RootElement.GetProperty("map").GetProperty("precopy").EnumerateArray().Select(value => value.GetInt32()));
    }

    [Fact]
    public void The_destinations_page_has_a_bar_for_each_cause_that_came()
    {
        XElement page = Parse(ReportPage.Of(Report("destination")));
        string[] bars = [.. page.Descendants().Attributes("class").Select(attribute => attribute.Value).Where(value => value.StartsWith("bar ", StringComparison.Ordinal))];
        Assert.Equal<string>(["bar cause-demand", "bar cause-demand", "bar cause-present"], bars);
        Assert.Contains("p99.9", page.Value, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("source")]
    [InlineData("destination")]
    public void What_peers_and_users_say_stays_text(string role)
    {
        MigrationReport honest = Report(role);
        var hostile = honest with
        {
            Error = Hostile,
            Machine = Hostile,
            Status = honest.Status with { Error = Hostile, Backing = Hostile, Host = Hostile, Migration = honest.Status.Migration! with { Peer = Hostile, Decisions = [Hostile] } },
            Options = honest.Options is null ? null : honest.Options with { Mode = Hostile, Compression = Hostile, OnTimeout = Hostile },
            Moments = [.. honest.Moments.Select(moment => moment with { Decision = Hostile })],
            Faults = [.. honest.Faults.Select(faults => faults with { Cause = Hostile })],
        };
        string written = ReportPage.Of(hostile);
        XElement page = Parse(written);
        Assert.Equal(1, Regex.Count(written, "<script", RegexOptions.IgnoreCase));
        Assert.Equal(1, Regex.Count(written, "</script", RegexOptions.IgnoreCase));
        Assert.DoesNotContain("<img", written, StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain("<!--", written, StringComparison.Ordinal);
        Assert.DoesNotContain(page.DescendantsAndSelf().Attributes(), attribute => attribute.Name.LocalName.StartsWith("on", StringComparison.OrdinalIgnoreCase));
        Assert.Contains("<script>alert(1)</script>", page.Value, StringComparison.Ordinal);
        Assert.Contains("😀", page.Value, StringComparison.Ordinal);
        using var data = JsonDocument.Parse(DataOf(page));
        Assert.StartsWith("</script><script>", data.RootElement.GetProperty("error").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("source")]
    [InlineData("destination")]
    public void Nothing_in_the_page_is_fetched(string role)
    {
        string written = ReportPage.Of(Report(role));
        XElement page = Parse(written);
        Assert.DoesNotContain(page.DescendantsAndSelf().Attributes(), attribute => attribute.Name.LocalName is "src" or "href" or "srcset" or "data" or "action" or "poster" or "background" or "style");
        Assert.DoesNotContain(page.Descendants(), element => element.Name.LocalName is "link" or "img" or "iframe" or "object" or "embed" or "image" or "use" or "base");
        string sheet = page.Descendants(s_html + "style").Single().Value;
        Assert.DoesNotContain("url(", sheet, StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain("@import", sheet, StringComparison.OrdinalIgnoreCase);
        Assert.Equal("application/json", page.Descendants(s_html + "script").Single().Attribute("type")!.Value);
    }

    [Fact]
    public void A_migration_that_ended_before_anything_was_measured_has_a_page()
    {
        MigrationReport report = Report("source") with
        {
            Samples = ReportSamples.Of([]),
            Moments = [],
            Map = null,
            Error = "Nobody listens there (ECONNREFUSED).",
        };
        Assert.Contains("ECONNREFUSED", Parse(ReportPage.Of(report)).Value, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_report_that_can_not_be_written_is_refused_before_anything_begins()
    {
        using var directory = new TemporaryDirectory();
        string missing = directory.Path("missing/report.html");
        using PageferryProcess receive = await PageferryProcess.RunAsync("vm", "receive", "--listen", "127.0.0.1:0", "--control", directory.Path("b.sock"), "--report", missing);
        Assert.Equal(1, receive.ExitCode);
        Assert.Contains($"Could not write a report to {missing}", receive.Errors, StringComparison.Ordinal);
        CommandException refused = Assert.Throws<CommandException>(() => ReportFile.At("relative.html"));
        Assert.Contains("absolute path", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/dev/null")]
    [InlineData("guest.bin")]
    public async Task A_report_goes_to_no_file_but_a_page(string path)
    {
        using PageferryProcess migrate = await PageferryProcess.RunAsync("vm", "migrate", "--control", "a.sock", "--to", "127.0.0.1:1", "--report", path);
        Assert.Equal(2, migrate.ExitCode);
        Assert.Contains($"'{path}' is not a value of --report", migrate.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public void A_report_that_can_not_be_written_afterwards_is_told()
    {
        using var directory = new TemporaryDirectory();
        _ = Directory.CreateDirectory(directory.Path("soon-gone"));
        ReportFile file = ReportFile.At(directory.Path("soon-gone/report.html"))!;
        Assert.Empty(Directory.GetFiles(directory.Path("soon-gone")));
        Directory.Delete(directory.Path("soon-gone"));
        Assert.Contains("Could not write the report", file.Write(() => Report("source")), StringComparison.Ordinal);
        Assert.NotNull(file.Error);
        Assert.Null(file.WrittenTo);
    }

    internal static XElement Parse(string page)
    {
        using var reader = XmlReader.Create(new StringReader(page), new XmlReaderSettings { DtdProcessing = DtdProcessing.Ignore, XmlResolver = null });
        XElement root = XDocument.Load(reader).Root!;
        Assert.Equal(s_html + "html", root.Name);
        return root;
    }

    internal static string DataOf(XElement page) => page.Descendants(s_html + "script").Single(script => script.Attribute("id")!.Value == ReportPage.DataId).Value;

    private static MigrationReport Report(string role)
    {
        bool isSource = role == "source";
        var latency = new FaultLatency(50, 90, 990, 5000, 12_000);
        var migration = new MigrationStatus
        {
            Role = role,
            Peer = "127.0.0.1:4444",
            Phase = "completed",
            PagesTotal = 16_384,
            PagesDone = 16_384,
            PagesRemaining = 0,
            PagesPrecopy = 1300,
            PagesDemand = 77,
            PagesBackground = 8123,
            PagesZero = 41,
            Reconnects = 0,
            PagesDamaged = 3,
            Bytes = 987_654_321,
            TotalMs = 2500,
            BackgroundMibPerS = 432.1,
            DowntimeMs = isSource ? 12.345 : null,
            Round = isSource ? 17 : null,
            DemandFaults = isSource ? null : 80,
            FaultLatencyUs = isSource ? null : latency,
        };
        return new MigrationReport
        {
            WrittenAt = "2026-01-02T03:04:05Z",
            Version = "1.2.3+0123456789abcdef",
            ProtocolVersion = 2,
            Machine = "host",
            Kernel = "6.12",
            Guest = Guid.NewGuid(),
            Status = new VmStatus { State = "moved", Pid = 1, Backing = "memfd", Host = "kvm", Vcpus = 1, Migration = migration },
            Options = isSource ? new MigrationSettings { Mode = "auto", DowntimeLimitMs = 300, Validate = true } : null,
            Samples = new ReportSamples([0, 1000, 2500], [0, 500, 987_654_321], [16_384, 900, 0], [0, 1300, 1300], [0, 0, 77], [0, 0, 8123], [0, 41, 41], [0, 30, 0]),
            Moments =
            [
                new ReportMoment { AtMs = 10, Phase = "pre_copy", Round = 1, PagesRemaining = 16_384 },
                new ReportMoment { AtMs = 1100, Phase = "pre_copy", Round = 1, PagesRemaining = 0, BandwidthMibPerS = 900, DirtyMibPerS = 800, ExpectedDowntimeMs = 400, Decision = "it goes" },
                new ReportMoment { AtMs = 1200, Phase = "switching_over", Round = 1, PagesRemaining = 9000 },
                new ReportMoment { AtMs = 1210, Phase = "post_copy", Round = 1, PagesRemaining = 9000 },
                new ReportMoment { AtMs = 2500, Phase = "completed", Round = 1, PagesRemaining = 0 },
            ],
            Faults = isSource
                ? []
                : [
                    new ReportFaults("demand", 80, latency, [new LatencyBar(50.119, 63.096, 79), new LatencyBar(10_000, 12_589.254, 1)]),
                    new ReportFaults("present", 1, latency, [new LatencyBar(5.012, 6.31, 1)]),
                ],
            Map = new ReportMap(64, 256, [1, 0, 1300], [2, 5, 77], [2, 0, 8000, 2, 255, 123], [1, 255, 41]),
        };
    }
}
