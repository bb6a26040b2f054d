using System.Globalization;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary>The page that a report is: HTML that needs no network, no script and no other file, and parses as XML too.</summary>
internal static class ReportPage
{
    /// <summary>The id of the element that has the numbers as JSON.</summary>
    internal const string DataId = "report";

    /// <summary>Writes a report's page.</summary>
    /// <param name="report">A report of a guest that has a migration.</param>
    /// <returns>The page.</returns>
    internal static string Of(MigrationReport report)
    {
        MigrationStatus migration = report.Status.Migration!;
        string peer = migration.Peer ?? "an unknown peer";
        string title = migration.Role == "source" ? $"Migration to {peer}" : $"Migration from {peer}";
        var page = new PageWriter();
        _ = page.Verbatim("<!DOCTYPE html>\n").Open("html", ("lang", "en"), ("xmlns", "http://www.w3.org/1999/xhtml")).Open("head");
        page.Leaf("meta", ("charset", "utf-8")).Leaf("meta", ("name", "viewport"), ("content", "width=device-width, initial-scale=1"));
        page.Element("title", $"{title}: {migration.Phase}").Open("style").Verbatim(ReportStyle.Sheet).Close().Close().Open("body");
        page.Open("header").Open("h1").Text($"{title} ").Element("span", migration.Phase, ("class", $"badge {migration.Phase}")).Close();
        page.Element("p", $"{MemorySize.Format(migration.PagesTotal * Memory.Page.Size)} of guest memory, seen from the {migration.Role} {report.Machine}, {report.WrittenAt}", ("class", "quiet")).Close();
        if (report.Error is { } error)
        {
            page.Element("p", error, ("class", "error"));
        }

        WriteTiles(page, report);
        WriteDecisions(page, report);
        WriteTimeline(page, report);
        WriteLatencies(page, report);
        page.Open("div", ("class", "pair"));
        WriteFacts(page, "What moved, between whom", ReportFacts.WhoAndWhat(report));
        WriteFacts(page, "What was asked for and done", ReportFacts.Done(report));
        page.Close();

        // The serializer writes no <, > or & as it is, so that nothing in it ends the element.
        page.Open("script", ("type", "application/json"), ("id", DataId)).Verbatim(JsonSerializer.Serialize(report, CliJson.Default.MigrationReport)).Close();
        return page.Close().Close().Verbatim("\n").ToString();
    }

    /// <summary>What a reader calls a way in which pages went.</summary>
    internal static string NameOf(string kind) => kind == "precopy" ? "pre-copy" : kind;

    private static void WriteTiles(PageWriter page, MigrationReport report)
    {
        page.Open("div", ("class", "tiles"));
        foreach ((string name, string value, string? detail) in ReportFacts.Key(report))
        {
            page.Open("div", ("class", "tile")).Element("span", name).Element("b", value).Element("span", detail ?? string.Empty).Close();
        }

        page.Close();
    }

    private static void WriteDecisions(PageWriter page, MigrationReport report)
    {
        ReportMoment[] decisions = [.. report.Moments.Where(moment => moment.Decision is not null)];
        if (decisions.Length == 0)
        {
            return;
        }

        page.Element("h2", "Why it did what it did").Open("ol", ("class", "decisions"));
        for (int i = 0; i < decisions.Length; i++)
        {
            page.Open("li").Element("span", $"{i + 1}", ("class", "n")).Element("span", string.Create(CultureInfo.InvariantCulture, $"{decisions[i].AtMs:#,0} ms"), ("class", "at"));
            page.Element("span", decisions[i].Decision!, ("class", "why")).Close();
        }

        page.Close();
        if (report.MomentsLeftOut is { } left)
        {
            page.Element("p", $"{left} moments in the middle were not kept.", ("class", "quiet"));
        }
    }

    private static void WriteTimeline(PageWriter page, MigrationReport report)
    {
        page.Element("h2", "Over time");
        if (report.Samples.AtMs is not [.., > 0])
        {
            page.Element("p", "It ended before there was anything to measure.", ("class", "quiet"));
            return;
        }

        page.Open("figure").Open("div", ("class", "plot"));
        TimelineDrawing.Draw(page, report);
        page.Close().Open("ul", ("class", "legend"));
        MigrationStatus migration = report.Status.Migration!;
        foreach ((string kind, ulong pages, string meaning) in ((string, ulong, string)[])[
            ("precopy", migration.PagesPrecopy, "before the guest"),
            ("demand", migration.PagesDemand, "the guest waited for it"),
            ("background", migration.PagesBackground, "before the guest touched it"),
            ("zero", migration.PagesZero, "without content")])
        {
            page.Open("li", ("class", kind)).Open("i").Close().Text(string.Create(CultureInfo.InvariantCulture, $"{NameOf(kind)}, {meaning}: {pages:N0} pages")).Close();
        }

        page.Open("li", ("class", "still")).Open("i").Close().Text("switchover: the guest stands still").Close().Close();
        page.Element("figcaption", MapCaption(report)).Close();
    }

    private static string MapCaption(MigrationReport report) => report.Map is { } map
        ? $"Each row is {MemorySize.Format((ulong)map.PagesPerRange * Memory.Page.Size)} of memory. The deeper the colour, the more of a row went in that moment: under 10 %, under 50 %, or more. What the guest waited for covers what else went in the row then."
        : "The migration ended before any memory went.";

    private static void WriteLatencies(PageWriter page, MigrationReport report)
    {
        if (report.Faults.Count == 0)
        {
            return;
        }

        page.Element("h2", "How long the guest waited").Open("figure").Open("div", ("class", "plot"));
        LatencyDrawing.Draw(page, report.Faults);
        page.Close().Close().Open("div", ("class", "plot")).Open("table").Open("tr").Element("th", "cause");
        foreach (string name in (string[])["faults", "p50", "p90", "p99", "p99.9", "max"])
        {
            page.Element("th", name, ("class", "number"));
        }

        page.Close();
        foreach (ReportFaults faults in report.Faults)
        {
            WriteLatency(page, faults.Cause, (ulong)faults.Count, faults.LatencyUs);
        }

        if (report.Status.Migration is { FaultLatencyUs: { } waits, DemandFaults: { } count })
        {
            WriteLatency(page, "demand and arriving", count, waits);
        }

        page.Close().Close();
    }

    private static void WriteLatency(PageWriter page, string cause, ulong count, FaultLatency us)
    {
        page.Open("tr").Element("td", cause).Element("td", string.Create(CultureInfo.InvariantCulture, $"{count:N0}"), ("class", "number"));
        foreach (double value in (double[])[us.P50, us.P90, us.P99, us.P999, us.Max])
        {
            page.Element("td", ReportFacts.Us(value), ("class", "number"));
        }

        page.Close();
    }

    private static void WriteFacts(PageWriter page, string title, IEnumerable<(string Name, string Value)> facts)
    {
        page.Open("section").Element("h2", title).Open("table", ("class", "facts"));
        foreach ((string name, string value) in facts)
        {
            page.Open("tr").Element("th", name, ("scope", "row")).Element("td", value).Close();
        }

        page.Close().Close();
    }
}
