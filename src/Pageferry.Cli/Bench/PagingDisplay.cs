namespace Pageferry.Cli;

/// <summary>Shows measurements of demand paging as text of at most 80 columns.</summary>
/// <param name="output">Where to.</param>
internal sealed class PagingDisplay(TextWriter output)
{
    private const int LabelColumns = 16;

    /// <summary>Says what is measured.</summary>
    /// <param name="settings">The settings.</param>
    /// <param name="hasUserfaults">Whether there are userfaults.</param>
    internal void Show(PagingSettings settings, bool hasUserfaults)
    {
        Say("measured", $"{Count(settings.Vcpus, "vCPU")}, {(settings.Overlap ? "all on the same" : "each on its own")} {MemorySize.Format(settings.BytesPerVcpu)} of {settings.Backing} memory ({settings.PagesPerVcpu} pages)");
        if (hasUserfaults)
        {
            string delay = settings.DelayUs > 0 ? $", answered after {settings.DelayUs} µs" : string.Empty;
            Say("userfaults", $"{settings.Userfault}, {(settings.Userfaultfds is UserfaultfdsWord.One ? "one userfaultfd" : "a userfaultfd per vCPU")} with {Count(settings.Readers, "reader")}{delay}");
        }

        if (settings.Cpus.Count > 0)
        {
            Say("pinned to", $"CPU {string.Join(", ", settings.Cpus)} in turn: the vCPUs, then the readers");
        }
    }

    /// <summary>Shows one measurement.</summary>
    /// <param name="report">The measurement.</param>
    /// <param name="latencies">Its latencies.</param>
    internal void Show(PagingReport report, LatencyHistogram latencies)
    {
        Say("delivery", report.Delivery);
        Say("total time", $"{report.TotalMs:F1} ms");
        Say("rate per vCPU", $"{report.PagesPerSPerVcpu:F0} pages/s");
        Say("overall rate", $"{report.PagesPerS:F0} pages/s");
        Say("per fault", $"{report.UsPerFault:F2} µs");
        Say("guest waited", Text(report.LatencyUs));
        if (report.EngineLatencyUs is { } engine)
        {
            Say("of it engine", Text(engine));
        }

        output.WriteLine();
        output.WriteLine("     µs           touches by how long they took");
        foreach (string line in latencies.Draw())
        {
            output.WriteLine(line);
        }
    }

    /// <summary>Shows a comparison.</summary>
    /// <param name="comparison">The comparison.</param>
    internal void Show(PagingComparison comparison)
    {
        output.WriteLine();
        output.WriteLine($"medians of {comparison.Rounds} rounds");
        foreach (PagingMedian median in comparison.Deliveries)
        {
            Say(median.Delivery, $"{median.MedianUsPerFault:F2} µs per fault, {median.MedianPagesPerSPerVcpu:F0} pages/s per vCPU");
        }

        foreach (PagingRatio ratio in comparison.Ratios)
        {
            Say($"{ratio.Delivery} / {ratio.To}", $"{ratio.Ratio:F2}");
        }
    }

    /// <summary>Shows one measurement of a comparison.</summary>
    /// <param name="round">The round, from 1.</param>
    /// <param name="report">The measurement.</param>
    internal void Show(int round, PagingReport report) => Say($"round {round}", $"{report.Delivery,-6} {report.UsPerFault,9:F2} µs per fault");

    private static string Text(FaultLatency us) => $"p50 {us.P50:F1}, p90 {us.P90:F1}, p99 {us.P99:F1}, p99.9 {us.P999:F1}, max {us.Max:F0} µs";

    private static string Count(int number, string what) => number == 1 ? $"1 {what}" : $"{number} {what}s";

    private void Say(string label, string text)
    {
        foreach (string line in TextWrap.Lines(text, new string(' ', LabelColumns), label.PadRight(LabelColumns)))
        {
            output.WriteLine(line);
        }
    }
}
