using System.Globalization;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Pageferry.Cli;

/// <summary>
/// Shows the demo: a picture that is redrawn when there is a terminal, a line now and then when there is none, and the table at the end.
/// Fits 80 columns.
/// </summary>
internal sealed class DemoDisplay
{
    private const int BarCells = 40;
    private const int NameColumns = 14;
    private const double MebiByte = 1 << 20;

    /// <summary>How often a display without a terminal writes a line.</summary>
    private static readonly TimeSpan s_lineInterval = TimeSpan.FromMilliseconds(500);

    private readonly IAnsiConsole _console;
    private readonly TimeProvider _clock = TimeProvider.System;
    private LiveDisplayContext? _live;
    private long _beganAt;
    private long _lineAt;
    private ulong _lineDone;

    /// <summary>Makes a display.</summary>
    /// <param name="output">Where to write: standard output, or standard error when standard output carries JSON.</param>
    /// <param name="isTerminal">Whether that is a terminal.</param>
    internal DemoDisplay(TextWriter output, bool isTerminal) => _console = CommandConsole.Create(output, isTerminal);

    private bool IsLive => _console.Profile.Capabilities.Ansi;

    /// <summary>Says what happens, as lines that stay.</summary>
    /// <param name="who">The process that it happens to, or nothing.</param>
    /// <param name="text">What happens.</param>
    internal void Say(string who, string text)
    {
        foreach (string line in TextWrap.Lines(text, new string(' ', NameColumns), who.PadRight(NameColumns)))
        {
            Write(line);
        }
    }

    /// <summary>Shows the migration while it runs.</summary>
    /// <typeparam name="T">What the migration returns.</typeparam>
    /// <param name="migrate">The migration, which calls <see cref="Update"/>.</param>
    /// <returns>What it returned.</returns>
    internal async Task<T> ShowAsync<T>(Func<Task<T>> migrate)
    {
        _beganAt = _clock.GetTimestamp();
        if (!IsLive)
        {
            return await migrate();
        }

        return await _console.Live(new Text(string.Empty)).StartAsync(async live =>
        {
            _live = live;
            try
            {
                return await migrate();
            }
            finally
            {
                _live = null;
            }
        });
    }

    /// <summary>Shows how the migration stands.</summary>
    /// <param name="destination">The destination's state.</param>
    internal void Update(VmStatus destination)
    {
        if (destination.Migration is not { PagesTotal: > 0 } migration)
        {
            return;
        }

        double done = migration.PagesDone / (double)migration.PagesTotal;
        double seconds = _clock.GetElapsedTime(_beganAt).TotalSeconds;
        double rate = seconds > 0 ? migration.PagesDone * (double)Memory.Page.Size / MebiByte / seconds : 0;
        string pages = string.Create(CultureInfo.InvariantCulture, $"{done,5:P0} of {migration.PagesTotal:N0} pages, {rate:N0} MiB/s");
        string latency = migration.FaultLatencyUs is { } us ? string.Create(CultureInfo.InvariantCulture, $", p50 {us.P50:N0}, p99 {us.P99:N0} µs") : string.Empty;
        string faults = string.Create(CultureInfo.InvariantCulture, $"{migration.DemandFaults ?? 0:N0} faults{latency}");
        if (_live is { } live)
        {
            live.UpdateTarget(Picture(done, pages, destination.Passes is { } passes ? $"{faults}; guest in pass {passes + 1}, {destination.PagesWrong} wrong" : faults));
        }
        else if (migration.PagesDone > _lineDone && (_lineDone == 0 || migration.PagesDone == migration.PagesTotal || _clock.GetElapsedTime(_lineAt) >= s_lineInterval))
        {
            _lineDone = migration.PagesDone;
            _lineAt = _clock.GetTimestamp();
            Write($"{pages}, {faults}");
        }
    }

    /// <summary>Shows the table that the demo ends with.</summary>
    /// <param name="report">What the demo found.</param>
    internal void Show(DemoReport report)
    {
        FaultLatency us = report.FaultLatencyUs;
        (string Label, FormattableString Value)[] rows =
        [
            ("downtime", $"{report.DowntimeMs:F2} ms"),
            ("total time", $"{report.TotalMs:N0} ms"),
            ("pages", $"{report.PagesTotal:N0}: {report.PagesPrecopy:N0} pre-copy, {report.PagesDemand:N0} demand, {report.PagesBackground:N0} background, {report.PagesZero:N0} zero"),
            ("demand faults", $"{report.DemandFaults:N0}"),
            ("fault latency", $"p50 {us.P50:N0}, p90 {us.P90:N0}, p99 {us.P99:N0}, p99.9 {us.P999:N0}, max {us.Max:N0} µs"),
            ("background", $"{report.BackgroundMibPerS:N0} MiB/s"),
            ("bytes sent", $"{report.BytesSent:N0} ({MemorySize.FormatMeasured(report.BytesSent)})"),
        ];
        _console.WriteLine();
        Table table = new Table { Border = TableBorder.Rounded, ShowHeaders = false }.AddColumn(string.Empty).AddColumn(string.Empty);
        foreach ((string label, FormattableString value) in rows)
        {
            string text = value.ToString(CultureInfo.InvariantCulture);
            if (IsLive)
            {
                _ = table.AddRow(new Text(label), new Text(text));
            }
            else
            {
                Say(label, text);
            }
        }

        if (IsLive)
        {
            _console.Write(table);
        }

        Write(string.Create(CultureInfo.InvariantCulture, $"{report.PagesChecked:N0} pages checked by the guest, {report.PagesWrong} wrong"));
    }

    private void Write(string line) => _console.Profile.Out.Writer.WriteLine(line);

    private static Rows Picture(double done, string pages, string faults)
    {
        int filled = (int)(done * BarCells);
        IRenderable bar = new Markup($"[green]{new string('█', filled)}[/][grey]{new string('░', BarCells - filled)}[/]");
        return new Rows(bar, new Text(pages), new Text(faults));
    }
}
