using System.Globalization;
using System.Text;

namespace Pageferry.Cli;

/// <summary>A guest's status for a reader: a fact per line.</summary>
internal static class VmStatusText
{
    /// <summary>Writes a status.</summary>
    /// <param name="status">The status.</param>
    /// <returns>The lines, without a newline after the last.</returns>
    internal static string Of(VmStatus status)
    {
        var text = new StringBuilder();
        Line(text, "state", $"{status.State} (pid {status.Pid})");
        if (status.Host is not null)
        {
            Line(text, "guest", $"{MemorySize.Format(status.MemoryBytes ?? 0)} of {status.Backing} memory, {status.Vcpus} vCPU, on {status.Host}, writes tracked by {status.DirtyTracking}");
            if (status.HugePagesCollapsed is { } collapsed)
            {
                Line(text, "huge pages", $"{collapsed:N0} made of small ones, {status.HugePagesLeft:N0} left small");
            }

            Line(text, "progress", $"{status.Passes:N0} passes, {status.PagesChecked:N0} pages checked, {status.PagesWrong} wrong");
        }

        if (status.ArmedPages is not null)
        {
            Line(text, "armed", $"{status.ArmedPages:N0} pages, by {status.Delivery}; {status.Userfaults:N0} userfaults answered");
        }

        if (status.Listen is not null)
        {
            Line(text, "listens on", $"{status.Listen}");
        }

        if (status.Engine is { } engine)
        {
            Line(text, "engine", $"{(engine.Pid is { } pid ? $"pid {pid}, {engine.Version ?? "starting"}" : "none")}{(engine.Restarts > 0 ? $", started anew {engine.Restarts} times. {engine.Error}" : string.Empty)}");
        }

        if (status.Migration is { } migration)
        {
            Line(text, "migration", $"{migration.Role}{(migration.Tls ? " under TLS" : string.Empty)}, {migration.Phase}: {migration.PagesDone:N0} of {migration.PagesTotal:N0} pages, {migration.TotalMs:N0} ms");
            Line(text, "pages", $"{migration.PagesPrecopy:N0} pre-copy, {migration.PagesDemand:N0} demand, {migration.PagesBackground:N0} background, {migration.PagesZero:N0} zero");
            if (migration.WaitsFor is not null)
            {
                Line(text, "waits for", $"{migration.WaitsFor} (since {migration.WaitedMs / 1000:N1} s)");
            }

            if (migration.Stall is { } stall)
            {
                Line(text, "stall", $"page {stall.Gpa}, {stall.Cause}, for {stall.AgeMs / 1000:N1} s");
            }

            if (migration.Reconnects > 0)
            {
                Line(text, "reconnected", $"{migration.Reconnects} times");
            }

            if (migration.FaultLatencyUs is { } us)
            {
                Line(text, "fault latency", $"p50 {us.P50:N0}, p90 {us.P90:N0}, p99 {us.P99:N0}, p99.9 {us.P999:N0}, max {us.Max:N0} µs");
            }
        }

        if (status.ExitCode is not null)
        {
            Line(text, "exit code", $"{status.ExitCode}");
        }

        if (status.Error is not null)
        {
            Line(text, "error", $"{status.Error}");
        }

        return text.ToString().TrimEnd();
    }

    private static void Line(StringBuilder text, string label, FormattableString value) =>
        text.Append(label.PadRight(14)).AppendLine(value.ToString(CultureInfo.InvariantCulture));
}
