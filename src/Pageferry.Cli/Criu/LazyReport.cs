using System.Globalization;
using System.Text;
using Pageferry.Criu;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What a lazy restore took: the object that <c>criu lazy-pages --json</c> writes. docs/cli.md explains each field.</summary>
internal sealed record LazyReport
{
    /// <summary>Processes, those that were forked meanwhile included.</summary>
    public required int Processes { get; init; }

    /// <summary>Pages that a process waited for.</summary>
    public required long PagesDemand { get; init; }

    /// <summary>Pages that arrived before a process touched them.</summary>
    public required long PagesBackground { get; init; }

    /// <summary>Pages that a process gave back.</summary>
    public required long PagesRemoved { get; init; }

    /// <summary>The faults of each cause that there were any of.</summary>
    public required IReadOnlyList<LazyFaults> Faults { get; init; }

    /// <summary>Makes a report.</summary>
    /// <param name="summary">Of what.</param>
    internal static LazyReport Of(LazySummary summary) => new()
    {
        Processes = summary.Processes,
        PagesDemand = summary.DemandPages,
        PagesBackground = summary.BackgroundPages,
        PagesRemoved = summary.RemovedPages,
        Faults =
        [
            .. from cause in Enum.GetValues<FaultCause>()
               let latencies = summary.Latencies(cause)
               where latencies is not null
               select new LazyFaults(cause.ToString().ToLowerInvariant(), latencies.TotalCount, FaultLatency.Of(latencies)!),
        ],
    };

    /// <summary>The same for a reader: a fact per line, without a newline after the last.</summary>
    internal string ToText()
    {
        var text = new StringBuilder();
        Line("processes", $"{Processes:N0}");
        Line("pages", $"{PagesDemand:N0} waited for, {PagesBackground:N0} before they were, {PagesRemoved:N0} given back");
        foreach (LazyFaults faults in Faults)
        {
            FaultLatency us = faults.LatencyUs;
            Line($"{faults.Cause}", $"{faults.Count:N0} faults, p50 {us.P50:N0}, p90 {us.P90:N0}, p99 {us.P99:N0}, p99.9 {us.P999:N0}, max {us.Max:N0} µs");
        }

        return text.ToString().TrimEnd();

        void Line(string label, FormattableString value) => text.Append(label.PadRight(14)).AppendLine(value.ToString(CultureInfo.InvariantCulture));
    }
}
