using System.Globalization;

namespace Pageferry.Cli;

/// <summary>How long userfaults took: a histogram for each cause, all on one logarithmic axis of time.</summary>
internal static class LatencyDrawing
{
    private const double RowHeight = 84;
    private const double RowStep = 124;
    private const double FirstTop = 32;

    /// <summary>What a bar of one fault has of the height, in powers of ten: it has to be seen too.</summary>
    private const double OneFault = 0.3;

    /// <summary>What a cause means.</summary>
    internal static string MeaningOf(string cause) => cause switch
    {
        "demand" => "the page had to be asked for",
        "arriving" => "the page was on its way already",
        "zero" => "the page reads as zero and had only to be mapped",
        _ => "the page was here: the kernel had unmapped it, or it was placed meanwhile",
    };

    /// <summary>Draws the histograms of at least one cause.</summary>
    internal static void Draw(PageWriter page, IReadOnlyList<ReportFaults> faults)
    {
        int first = (int)Math.Floor(Math.Log10(faults.Min(cause => cause.Histogram[0].FromUs)) + 0.001);
        int last = Math.Max(first + 1, (int)Math.Ceiling(Math.Log10(faults.Max(cause => cause.Histogram[^1].ToUs)) - 0.001));
        double height = FirstTop + (RowStep * (faults.Count - 1)) + RowHeight + 50;
        page.Open("svg", ("viewBox", $"0 0 {PlotArea.DrawingWidth} {height}"), ("role", "img"), ("aria-label", "Fault latency by cause"));
        double top = FirstTop;
        foreach (ReportFaults cause in faults)
        {
            DrawCause(page, cause, top, us => X(us, first, last), first, last);
            top += RowStep;
        }

        double bottom = top - RowStep + RowHeight;
        for (int decade = first; decade <= last; decade++)
        {
            double x = PlotArea.Left + ((decade - first) * PlotArea.Width / (last - first));
            page.Element("text", NameOf(decade), ("x", x), ("y", bottom + 20), ("class", "middle"));
        }

        page.Element("text", "time from the fault's message to the placed page", ("x", PlotArea.Left + (PlotArea.Width / 2)), ("y", bottom + 41), ("class", "middle")).Close();
    }

    private static double X(double us, int first, int last) => PlotArea.Left + ((Math.Log10(us) - first) * PlotArea.Width / (last - first));

    private static void DrawCause(PageWriter page, ReportFaults cause, double top, Func<double, double> x, int first, int last)
    {
        double most = Math.Max(1, Math.Ceiling(Math.Log10(cause.Histogram.Max(bar => bar.Count)) - 0.001));
        double bottom = top + RowHeight;
        page.Element("text", $"{cause.Cause}: {MeaningOf(cause.Cause)}", ("x", PlotArea.Left), ("y", top - 9), ("class", "title"));
        for (int decade = 0; decade <= most; decade += most > 4 ? 2 : 1)
        {
            double y = bottom - (HeightOf(Math.Pow(10, decade)) * RowHeight);
            page.Leaf("line", ("x1", PlotArea.Left), ("x2", PlotArea.Right), ("y1", y), ("y2", y), ("class", "grid"));
            page.Element("text", Math.Pow(10, decade).ToString("#,0", CultureInfo.InvariantCulture), ("x", PlotArea.Left - 8), ("y", y + 5), ("class", "end"));
        }

        for (int decade = first; decade <= last; decade++)
        {
            double at = x(Math.Pow(10, decade));
            page.Leaf("line", ("x1", at), ("x2", at), ("y1", top), ("y2", bottom + 4), ("class", "grid"));
        }

        foreach (LatencyBar bar in cause.Histogram)
        {
            double from = x(bar.FromUs);
            double height = HeightOf(bar.Count) * RowHeight;
            page.Open("rect", ("x", from), ("y", bottom - height), ("width", Math.Max(1, x(bar.ToUs) - from - 1)), ("height", height), ("class", $"bar cause-{cause.Cause}"));
            page.Element("title", string.Create(CultureInfo.InvariantCulture, $"{bar.FromUs:#,0.###} to {bar.ToUs:#,0.###} µs: {bar.Count:N0} faults")).Close();
        }

        page.Leaf("line", ("x1", PlotArea.Left), ("x2", PlotArea.Right), ("y1", bottom), ("y2", bottom), ("class", "axis"));
        double next = double.NegativeInfinity;
        foreach ((string name, double us) in ((string, double)[])[("p50", cause.LatencyUs.P50), ("p99", cause.LatencyUs.P99), ("max", cause.LatencyUs.Max)])
        {
            double at = x(us);
            page.Leaf("line", ("x1", at), ("x2", at), ("y1", top - 2), ("y2", bottom), ("class", "percentile"));
            if (at >= next)
            {
                page.Element("text", name, ("x", at + 4), ("y", top + 11), ("class", "small"));
                next = at + 36;
            }
        }

        page.Element("text", string.Create(CultureInfo.InvariantCulture, $"{cause.Count:N0} faults"), ("x", PlotArea.Right + 14), ("y", top + 14));

        double HeightOf(double count) => (Math.Log10(count) + OneFault) / (most + OneFault);
    }

    private static string NameOf(int decade) => decade switch
    {
        < 0 => string.Create(CultureInfo.InvariantCulture, $"{Math.Pow(10, decade):0.###} µs"),
        < 3 => $"{Math.Pow(10, decade)} µs",
        < 6 => $"{Math.Pow(10, decade - 3)} ms",
        _ => $"{Math.Pow(10, decade - 6)} s",
    };
}
