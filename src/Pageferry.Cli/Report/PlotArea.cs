using System.Globalization;
using System.Text;

namespace Pageferry.Cli;

/// <summary>A rectangle of a drawing in which values are plotted over time.</summary>
/// <param name="Top">Its upper edge.</param>
/// <param name="Height">Its height.</param>
/// <param name="EndMs">The time at its right edge; the left one is 0.</param>
/// <param name="Most">The value at its upper edge; the lower one is 0.</param>
internal readonly record struct PlotArea(double Top, double Height, double EndMs, double Most)
{
    /// <summary>The left edge of every plot, so that they share one time axis.</summary>
    internal const double Left = 88;

    /// <summary>The width of every plot.</summary>
    internal const double Width = 724;

    /// <summary>The width of a drawing, with what stands beside its plots.</summary>
    internal const double DrawingWidth = 1000;

    internal const double Right = Left + Width;

    internal double Bottom => Top + Height;

    /// <summary>Steps of 1, 2 or 5 times a power of ten.</summary>
    /// <param name="most">The largest value shown.</param>
    /// <param name="count">About how many steps there are.</param>
    internal static double Step(double most, int count)
    {
        double raw = Math.Max(most, 1e-9) / count;
        double unit = Math.Pow(10, Math.Floor(Math.Log10(raw)));
        double step = raw / unit;
        return unit * (step <= 1 ? 1 : step <= 2 ? 2 : step <= 5 ? 5 : 10);
    }

    /// <summary>Where a time is.</summary>
    internal double X(double ms) => Left + (EndMs > 0 ? Math.Clamp(ms / EndMs, 0, 1) * Width : 0);

    /// <summary>Where a value is.</summary>
    internal double Y(double value) => Bottom - (Most > 0 ? Math.Clamp(value / Most, 0, 1) * Height : 0);

    /// <summary>A line through points, as a path.</summary>
    internal string Line(IEnumerable<(double Ms, double Value)> points)
    {
        var path = new StringBuilder();
        foreach ((double ms, double value) in points)
        {
            _ = path.Append(path.Length == 0 ? 'M' : 'L').Append(PageWriter.Number(X(ms))).Append(' ').Append(PageWriter.Number(Y(value)));
        }

        return path.ToString();
    }

    /// <summary>Draws the plot's title and its lines at round values.</summary>
    internal void DrawGrid(PageWriter page, string title)
    {
        page.Element("text", title, ("x", Left), ("y", Top - 9), ("class", "title"));
        double step = Step(Most, 4);
        for (double value = 0; value <= Most * 1.0001; value += step)
        {
            page.Leaf("line", ("x1", Left), ("x2", Right), ("y1", Y(value)), ("y2", Y(value)), ("class", "grid"));
            page.Element("text", value.ToString("#,0.##", CultureInfo.InvariantCulture), ("x", Left - 8), ("y", Y(value) + 5), ("class", "end"));
        }
    }
}
