using System.Globalization;
using System.Text;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>Memory from top to bottom, time from left to right: which range went when, and by its colour, how; beside it how often each range went.</summary>
internal static class MapPlot
{
    /// <summary>Its height.</summary>
    internal const double Height = 330;

    private const double BarsLeft = PlotArea.Right + 14;
    private const double BarsWidth = 150;

    /// <summary>What went in an instant, and a page among many, have to be seen too.</summary>
    private const double LeastDot = 2;

    /// <summary>Of the pages of a range, what has to go in a column for each depth of colour.</summary>
    private static readonly double[] s_shares = [0, 0.1, 0.5];

    /// <summary>Draws the map of a migration that has one.</summary>
    internal static void Draw(PageWriter page, MigrationReport report, PlotArea area)
    {
        ulong bytes = (report.Status.Migration?.PagesTotal ?? 0) * Page.Size;
        page.Element("text", $"Which memory went how: guest memory from its first page to its last, {MemorySize.Format(bytes)}", ("x", PlotArea.Left), ("y", area.Top - 9), ("class", "title"));
        if (report.Map is not { } map)
        {
            return;
        }

        // What the guest waited for is drawn last, over all else.
        (string Kind, IReadOnlyList<int> Cells)[] kinds = [("zero", map.Zero), ("precopy", map.Precopy), ("background", map.Background), ("demand", map.Demand)];
        double[] columns = [0, .. report.Samples.AtMs];
        foreach ((string kind, IReadOnlyList<int> cells) in kinds)
        {
            DrawCells(page, kind, cells, map, area, columns);
        }

        for (int quarter = 0; quarter <= 4; quarter++)
        {
            double y = area.Top + (area.Height * quarter / 4);
            page.Element("text", MemorySize.FormatMeasured(bytes * (ulong)quarter / 4), ("x", PlotArea.Left - 8), ("y", y + 5), ("class", "end"));
            page.Leaf("line", ("x1", PlotArea.Left - 5), ("x2", PlotArea.Left), ("y1", y), ("y2", y), ("class", "axis"));
        }

        DrawSums(page, kinds, map, area, (long)(bytes / Page.Size));
    }

    private static void DrawCells(PageWriter page, string kind, IReadOnlyList<int> cells, ReportMap map, PlotArea area, double[] columns)
    {
        double row = area.Height / map.Ranges;
        StringBuilder[] paths = [.. s_shares.Select(_ => new StringBuilder())];
        for (int i = 0; i < cells.Count;)
        {
            (int column, int range, int depth) = (cells[i], cells[i + 1], DepthOf(cells[i + 2]));
            int last = column;
            for (i += 3; i < cells.Count && cells[i + 1] == range && cells[i] == last + 1 && DepthOf(cells[i + 2]) == depth; i += 3)
            {
                last++;
            }

            double x = area.X(columns[column]);

            double width = Math.Max(area.X(columns[last + 1]) - x, LeastDot);
            _ = paths[depth].Append('M').Append(PageWriter.Number(x)).Append(' ').Append(PageWriter.Number(area.Top + ((range + 0.5) * row))).Append('h').Append(PageWriter.Number(width));
        }

        for (int depth = 0; depth < paths.Length; depth++)
        {
            if (paths[depth].Length > 0)
            {
                page.Leaf("path", ("d", paths[depth]), ("stroke-width", Math.Max(row + 0.1, LeastDot)), ("class", $"cell {kind} depth{depth}"));
            }
        }

        int DepthOf(int pages)
        {
            double share = pages / (double)map.PagesPerRange;
            return Array.FindLastIndex(s_shares, least => share >= least);
        }
    }

    /// <summary>How often each range went, all columns together.</summary>
    private static void DrawSums(PageWriter page, (string Kind, IReadOnlyList<int> Cells)[] kinds, ReportMap map, PlotArea area, long pages)
    {
        long[][] sums = [.. kinds.Select(kind => SumsOf(kind.Cells, map.Ranges))];
        double most = 1;
        for (int range = 0; range < map.Ranges; range++)
        {
            most = Math.Max(most, TimesOf(sums.Sum(sum => sum[range]), range));
        }

        double step = PlotArea.Step(most, 3);
        page.Element("text", "times a range went", ("x", BarsLeft), ("y", area.Top - 9), ("class", "title"));
        for (double times = 0; times <= most * 1.0001; times += step)
        {
            double x = BarsLeft + (times / most * BarsWidth);
            page.Leaf("line", ("x1", x), ("x2", x), ("y1", area.Top), ("y2", area.Bottom + 5), ("class", "grid"));
            page.Element("text", times.ToString("0.##", CultureInfo.InvariantCulture), ("x", x), ("y", area.Bottom + 20), ("class", "middle"));
        }

        double row = area.Height / map.Ranges;
        var starts = new double[map.Ranges];
        foreach ((int k, string kind) in kinds.Select((kind, k) => (k, kind.Kind)))
        {
            var path = new StringBuilder();
            for (int range = 0; range < map.Ranges; range++)
            {
                double width = TimesOf(sums[k][range], range) / most * BarsWidth;
                if (width > 0)
                {
                    _ = path.Append('M').Append(PageWriter.Number(BarsLeft + starts[range])).Append(' ').Append(PageWriter.Number(area.Top + ((range + 0.5) * row))).Append('h').Append(PageWriter.Number(width));
                    starts[range] += width;
                }
            }

            if (path.Length > 0)
            {
                page.Leaf("path", ("d", path), ("stroke-width", row + 0.1), ("class", $"cell {kind} depth2"));
            }
        }

        double TimesOf(long sum, int range) => sum / (double)Math.Max(1, Math.Min(map.PagesPerRange, pages - (range * map.PagesPerRange)));
    }

    private static long[] SumsOf(IReadOnlyList<int> cells, int ranges)
    {
        var sums = new long[ranges];
        for (int i = 0; i < cells.Count; i += 3)
        {
            sums[cells[i + 1]] += cells[i + 2];
        }

        return sums;
    }
}
