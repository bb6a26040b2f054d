using System.Globalization;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>A migration over time, one plot below the other: its phases and decisions, rates, what remained, and which memory went how.</summary>
internal sealed class TimelineDrawing
{
    private const double RibbonTop = 34;
    private const double RibbonHeight = 24;
    private const double RatesTop = 92;
    private const double RatesHeight = 190;
    private const double RemainingTop = 322;
    private const double RemainingHeight = 110;
    private const double MapTop = 474;
    private const double Height = MapTop + MapPlot.Height + 48;
    private const double GutterLeft = PlotArea.Right + 14;
    private const double PagesPerMib = (1 << 20) / Page.Size;

    private readonly MigrationReport _report;
    private readonly IReadOnlyList<ReportSpan> _spans;
    private readonly double _endMs;

    private TimelineDrawing(MigrationReport report)
    {
        _report = report;
        _spans = ReportSpan.Of(report);
        _endMs = report.Samples.AtMs[^1];
    }

    /// <summary>Draws a migration that has samples.</summary>
    internal static void Draw(PageWriter page, MigrationReport report)
    {
        var drawing = new TimelineDrawing(report);
        page.Open("svg", ("viewBox", $"0 0 {PlotArea.DrawingWidth} {Height}"), ("role", "img"), ("aria-label", "The migration over time"));
        page.Leaf("rect", ("x", PlotArea.Left), ("y", MapTop), ("width", PlotArea.Width), ("height", MapPlot.Height), ("class", "ground"));
        drawing.DrawSpans(page);
        drawing.DrawRates(page);
        drawing.DrawRemaining(page);
        MapPlot.Draw(page, report, new PlotArea(MapTop, MapPlot.Height, drawing._endMs, 1));
        drawing.DrawTime(page);
        drawing.DrawDecisions(page);
        page.Close();
    }

    private static string Mib(double value) => value.ToString("#,0.#", CultureInfo.InvariantCulture);

    /// <summary>The phases and rounds: a ribbon on top, and lines through all plots where one ends.</summary>
    private void DrawSpans(PageWriter page)
    {
        var area = new PlotArea(RibbonTop, RibbonHeight, _endMs, 1);
        foreach (ReportSpan span in _spans)
        {
            double from = area.X(span.FromMs);
            double width = area.X(span.ToMs) - from;
            bool isStill = span.Phase == "switching_over";
            string kind = isStill ? "still" : span.Phase == "post_copy" ? "after" : span.Round == 0 ? "other" : span.Round % 2 == 0 ? "even" : "odd";
            page.Open("g").Element("title", string.Create(CultureInfo.InvariantCulture, $"{span.Name}: {span.FromMs:#,0.0} to {span.ToMs:#,0.0} ms, {span.Ms:#,0.0} ms"));
            page.Leaf("rect", ("x", from), ("y", RibbonTop), ("width", Math.Max(width, isStill ? 2 : 0.5)), ("height", RibbonHeight), ("class", $"span {kind}"));
            string name = span.Name;
            if (width < name.Length * 8 && span.Round > 0)
            {
                name = $"{span.Round}";
            }

            if (width >= name.Length * 8)
            {
                page.Element("text", name, ("x", from + (width / 2)), ("y", RibbonTop + 17), ("class", "middle"));
            }

            page.Close();
            if (isStill)
            {
                // The source learns that the guest runs after it has told it to.
                double still = area.X(span.FromMs + Math.Max(span.Ms, _report.Status.Migration?.DowntimeMs ?? 0)) - from;
                page.Leaf("rect", ("x", from), ("y", RatesTop), ("width", Math.Max(still, 2)), ("height", MapTop + MapPlot.Height - RatesTop), ("class", "standstill"));
            }
            else if (span.FromMs > 0)
            {
                page.Leaf("line", ("x1", from), ("x2", from), ("y1", RatesTop), ("y2", MapTop + MapPlot.Height), ("class", "round"));
            }
        }

        page.Element("text", "phase", ("x", PlotArea.Left - 8), ("y", RibbonTop + 17), ("class", "end"));
    }

    private void DrawRates(PageWriter page)
    {
        ReportSamples samples = _report.Samples;
        int bins = Math.Clamp(samples.AtMs.Count / 2, 1, 150);
        double[] wire = RatesOf(samples.Bytes, 1.0 / (1 << 20), bins);
        (string Kind, double[] Rates)[] layers =
        [
            ("precopy", RatesOf(samples.PagesPrecopy, 1 / PagesPerMib, bins)),
            ("background", RatesOf(samples.PagesBackground, 1 / PagesPerMib, bins)),
            ("demand", RatesOf(samples.PagesDemand, 1 / PagesPerMib, bins)),
        ];
        (double FromMs, double ToMs, double Rate)[] dirty = [.. DirtyRates()];
        double most = Math.Max(1, Math.Max(wire.Max(), dirty.Select(round => round.Rate).DefaultIfEmpty().Max()));
        for (int bin = 0; bin < bins; bin++)
        {
            most = Math.Max(most, layers.Sum(layer => layer.Rates[bin]));
        }

        var area = new PlotArea(RatesTop, RatesHeight, _endMs, most * 1.04);
        area.DrawGrid(page, "Rates, MiB/s");
        var below = new double[bins];
        foreach ((string kind, double[] rates) in layers.Where(layer => layer.Rates.Any(rate => rate > 0)))
        {
            double[] above = [.. below.Zip(rates, (a, b) => a + b)];
            IEnumerable<(double Ms, double Value)> outline = Steps(above).Concat(Steps(below).Reverse());
            page.Leaf("path", ("d", $"{area.Line(outline)}Z"), ("class", $"area {kind}"));
            below = above;
        }

        page.Leaf("path", ("d", area.Line(Steps(wire))), ("class", "wire"));
        foreach ((double from, double to, double rate) in dirty)
        {
            page.Leaf("path", ("d", area.Line([(from, rate), (to, rate)])), ("class", "dirty"));
        }

        double legend = RatesTop + 8;
        foreach ((string name, string kind, bool isShown) in ((string, string, bool)[])[
            ("bytes on the wire", "wire", true), ("dirtied by the guest", "dirty", dirty.Length > 0)])
        {
            if (isShown)
            {
                page.Leaf("line", ("x1", GutterLeft), ("x2", GutterLeft + 18), ("y1", legend), ("y2", legend), ("class", kind));
                page.Element("text", name, ("x", GutterLeft + 24), ("y", legend + 5));
                legend += 22;
            }
        }

        foreach ((string kind, _) in layers.Where(layer => layer.Rates.Any(rate => rate > 0)).Reverse())
        {
            page.Leaf("rect", ("x", GutterLeft), ("y", legend - 8), ("width", 18), ("height", 14), ("class", $"area {kind}"));
            page.Element("text", $"content, {ReportPage.NameOf(kind)}", ("x", GutterLeft + 24), ("y", legend + 5));
            legend += 22;
        }

        IEnumerable<(double Ms, double Value)> Steps(double[] rates) =>
            rates.SelectMany((rate, bin) => new[] { (bin * _endMs / bins, rate), ((bin + 1) * _endMs / bins, rate) });
    }

    private void DrawRemaining(PageWriter page)
    {
        (double Ms, double Pages)[] points =
        [
            .. _report.Samples.AtMs.Zip(_report.Samples.PagesRemaining, (at, pages) => (at, (double)pages))
                .Concat(_report.Moments.Select(moment => (moment.AtMs, (double)moment.PagesRemaining)))
                .Where(point => point.Item1 <= _endMs)
                .OrderBy(point => point.Item1),
        ];
        var area = new PlotArea(RemainingTop, RemainingHeight, _endMs, points.Max(point => point.Pages) / PagesPerMib * 1.04);
        area.DrawGrid(page, "Not at the destination, MiB");
        string line = area.Line(points.Select(point => (point.Ms, point.Pages / PagesPerMib)));
        page.Leaf("path", ("d", $"{line}V{PageWriter.Number(area.Bottom)}H{PageWriter.Number(area.X(points[0].Ms))}Z"), ("class", "remaining-area"));
        page.Leaf("path", ("d", line), ("class", "remaining"));
    }

    private void DrawTime(PageWriter page)
    {
        (double unit, string name) = _endMs switch
        {
            < 3_000 => (1.0, "ms"),
            < 600_000 => (1_000.0, "s"),
            _ => (60_000.0, "min"),
        };
        var area = new PlotArea(MapTop, MapPlot.Height, _endMs, 1);
        double step = PlotArea.Step(_endMs / unit, 8);
        for (double at = 0; at <= _endMs / unit * 1.0001; at += step)
        {
            double x = area.X(at * unit);
            page.Leaf("line", ("x1", x), ("x2", x), ("y1", area.Bottom), ("y2", area.Bottom + 5), ("class", "axis"));
            page.Element("text", at.ToString("#,0.###", CultureInfo.InvariantCulture), ("x", x), ("y", area.Bottom + 20), ("class", "middle"));
        }

        page.Element("text", $"time since the migration began, {name}", ("x", PlotArea.Left + (PlotArea.Width / 2)), ("y", area.Bottom + 41), ("class", "middle"));
    }

    /// <summary>The decisions' numbers, above the ribbon; those that would cover each other stand together.</summary>
    private void DrawDecisions(PageWriter page)
    {
        var area = new PlotArea(RibbonTop, RibbonHeight, _endMs, 1);
        ReportMoment[] decisions = [.. _report.Moments.Where(moment => moment.Decision is not null)];
        for (int first = 0; first < decisions.Length;)
        {
            double x = area.X(decisions[first].AtMs);
            int last = first;
            while (last + 1 < decisions.Length && area.X(decisions[last + 1].AtMs) - x < 26)
            {
                last++;
            }

            string label = first == last ? $"{first + 1}" : $"{first + 1}–{last + 1}";
            double width = 14 + (8 * label.Length);
            double left = Math.Clamp(x - (width / 2), PlotArea.Left, PlotArea.Right - width);
            page.Open("g").Element("title", string.Join('\n', decisions[first..(last + 1)].Select(decision => decision.Decision)));
            page.Leaf("line", ("x1", x), ("x2", x), ("y1", 22), ("y2", RibbonTop), ("class", "axis"));
            page.Leaf("rect", ("x", left), ("y", 2), ("width", width), ("height", 20), ("rx", 10), ("class", "decision"));
            page.Element("text", label, ("x", left + (width / 2)), ("y", 17), ("class", "number middle")).Close();
            first = last + 1;
        }

        if (decisions.Length > 0)
        {
            page.Element("text", "decided", ("x", PlotArea.Left - 8), ("y", 17), ("class", "end"));
        }
    }

    /// <summary>What a counter gained per second, in equal stretches of time.</summary>
    private double[] RatesOf(IReadOnlyList<long> counts, double scale, int bins)
    {
        IReadOnlyList<double> times = _report.Samples.AtMs;
        var rates = new double[bins];
        double before = 0;
        int next = 0;
        for (int bin = 0; bin < bins; bin++)
        {
            double at = (bin + 1) * _endMs / bins;
            while (next < times.Count - 1 && times[next] < at)
            {
                next++;
            }

            double fromMs = next > 0 ? times[next - 1] : 0;
            double from = next > 0 ? counts[next - 1] : 0;
            double share = times[next] > fromMs ? (at - fromMs) / (times[next] - fromMs) : 1;
            double now = from + (Math.Clamp(share, 0, 1) * (counts[next] - from));
            rates[bin] = _endMs > 0 ? (now - before) * scale * bins * 1000 / _endMs : 0;
            before = now;
        }

        return rates;
    }

    /// <summary>How fast the guest wrote in each round, as measured at its end.</summary>
    private IEnumerable<(double FromMs, double ToMs, double Rate)> DirtyRates() =>
        from span in _spans
        where span.Round > 0
        let rate = _report.Moments.FirstOrDefault(moment => moment.Round == span.Round && moment.Decision is not null)?.DirtyMibPerS
        where rate is not null
        select (span.FromMs, span.ToMs, rate.Value);
}
