using System.Globalization;
using System.Text;
using System.Text.Json;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Pageferry.Cli;

/// <summary>Shows a guest while it moves: one panel that is redrawn when there is a terminal, a line per second when there is none, or JSON, an object per second.</summary>
internal sealed class MigrationDisplay
{
    private const int BarCells = 40;

    private static readonly TimeSpan s_lineInterval = TimeSpan.FromSeconds(1);

    private readonly TextWriter _output;
    private readonly bool _json;
    private readonly IAnsiConsole _console;
    private readonly TimeProvider _clock = TimeProvider.System;
    private LiveDisplayContext? _live;
    private string? _phase;
    private string? _line;
    private long _lineAt;
    private int _decisionsTold;

    /// <summary>Makes a display.</summary>
    /// <param name="output">Where to write.</param>
    /// <param name="isTerminal">Whether that is a terminal.</param>
    /// <param name="json">Whether to write JSON.</param>
    internal MigrationDisplay(TextWriter output, bool isTerminal, bool json)
    {
        _output = output;
        _json = json;
        _console = CommandConsole.Create(output, isTerminal && !json);
    }

    /// <summary>Shows something while it runs.</summary>
    /// <param name="work">What runs, and calls <see cref="Update"/>.</param>
    internal async Task ShowAsync(Func<Task> work)
    {
        if (!_console.Profile.Capabilities.Ansi)
        {
            await work();
            return;
        }

        await _console.Live(new Text(string.Empty)).StartAsync(async live =>
        {
            _live = live;
            try
            {
                await work();
            }
            finally
            {
                _live = null;
            }
        });
    }

    /// <summary>Shows how the guest is now.</summary>
    /// <param name="status">How it is.</param>
    /// <param name="isLast">Whether nothing is shown after it.</param>
    internal void Update(VmStatus status, bool isLast = false)
    {
        if (_live is { } live)
        {
            live.UpdateTarget(Picture(status));
            return;
        }

        string phase = $"{status.State} {status.Migration?.Phase}";
        bool isDue = isLast || phase != _phase || _clock.GetElapsedTime(_lineAt) >= s_lineInterval;
        TellDecisions(status.Migration);
        string line = isDue ? _json ? JsonSerializer.Serialize(status, CliJson.Default.VmStatus) : Line(status) : string.Empty;
        if (isDue && (_json || line != _line))
        {
            _phase = phase;
            _line = line;
            _lineAt = _clock.GetTimestamp();
            _output.WriteLine(line);
        }
    }

    /// <summary>The facts of a migration that matter in its phase, each with its name.</summary>
    private static IEnumerable<(string Name, string Value)> Facts(MigrationStatus migration)
    {
        bool isBefore = migration.Phase is "preparing" or "pre_copy" or "switching_over";
        bool isAfter = migration.Phase is "post_copy";
        if (isBefore || isAfter)
        {
            yield return ("remaining", Mib(migration.PagesRemaining * Memory.Page.Size / (double)(1 << 20)));
        }

        if ((isBefore || isAfter) && migration.BytesMibPerS is { } wire)
        {
            yield return ("on the wire", $"{Mib(wire)}/s");
        }

        if (isBefore && migration.BandwidthMibPerS is { } bandwidth)
        {
            yield return ("bandwidth", $"{Mib(bandwidth)}/s");
            yield return ("dirty rate", $"{Mib(migration.DirtyMibPerS ?? 0)}/s");
        }

        if (isAfter && migration.BackgroundMibPerS > 0)
        {
            yield return ("bandwidth", $"{Mib(migration.BackgroundMibPerS)}/s");
        }

        if (isBefore && migration.ExpectedDowntimeMs is { } expected)
        {
            yield return ("expected downtime", Text($"{expected:N0} ms"));
        }

        if (migration.ThrottlePercent is { } throttle)
        {
            yield return ("throttled by", Text($"{throttle} %"));
        }

        if (migration.DowntimeMs is { } downtime)
        {
            yield return ("downtime", Text($"{downtime:N1} ms"));
        }

        if (isAfter && migration.FaultLatencyNowUs is { } now)
        {
            yield return ("demand now", Latency(now));
        }

        if (migration.FaultLatencyUs is { } all)
        {
            yield return ("demand faults", Text($"{migration.DemandFaults:N0}, {Latency(all)}"));
        }

        if (migration.WaitsFor is { } waits)
        {
            yield return ("waits for", Text($"{waits} ({migration.WaitedMs / 1000:N0} s)"));
        }

        if (migration.Reconnects > 0)
        {
            yield return ("reconnected", Text($"{migration.Reconnects} times"));
        }

        if (migration.PagesDamaged > 0)
        {
            yield return ("damaged pages", Text($"{migration.PagesDamaged:N0}"));
        }
    }

    private static string Latency(FaultLatency us) => Text($"p50 {us.P50:N0}, p99 {us.P99:N0}, max {us.Max:N0} µs");

    private static string Phase(VmStatus status) => status.Migration switch
    {
        null => status.State,
        { Round: { } round, Phase: "pre_copy" } => Text($"pre_copy, round {round}"),
        var migration => migration.Phase,
    };

    private static string Line(VmStatus status)
    {
        var line = new StringBuilder(Phase(status));
        if (status.Migration is { PagesTotal: > 0 } migration)
        {
            _ = line.Append(CultureInfo.InvariantCulture, $": {migration.PagesDone:N0} of {migration.PagesTotal:N0} pages, {MemorySize.FormatMeasured(migration.Bytes)}");
            foreach ((string name, string value) in Facts(migration))
            {
                _ = line.Append(CultureInfo.InvariantCulture, $", {name} {value}");
            }
        }

        if (status.Error is { } error)
        {
            _ = line.Append(CultureInfo.InvariantCulture, $": {error}");
        }

        return line.ToString();
    }

    private static Panel Picture(VmStatus status)
    {
        var rows = new List<IRenderable>();
        if (status.Migration is { PagesTotal: > 0 } migration)
        {
            double done = migration.PagesDone / (double)migration.PagesTotal;
            int filled = (int)(done * BarCells);
            rows.Add(new Markup(Text($"[green]{new string('█', filled)}[/][grey]{new string('░', BarCells - filled)}[/] {done:P0} of {migration.PagesTotal:N0} pages")));
            Grid grid = new Grid().AddColumn(new GridColumn { NoWrap = true }).AddColumn();
            if (migration.Peer is { } peer)
            {
                _ = grid.AddRow(new Text(migration.Role is "source" ? "to" : "from"), new Text($"{peer}{(migration.Tls ? " under TLS" : string.Empty)}"));
            }

            foreach ((string name, string value) in Facts(migration).Append((migration.Role is "source" ? "sent" : "received", MemorySize.FormatMeasured(migration.Bytes))))
            {
                _ = grid.AddRow(new Text(name), new Text(value));
            }

            rows.Add(grid);
            if (migration.Decisions is { Count: > 0 } decisions)
            {
                rows.Add(new Text(decisions[^1]));
            }
        }

        if (status.Passes is { } passes)
        {
            rows.Add(new Text(Text($"guest {(status.Paused == true ? "stands still" : "is")} in pass {passes + 1}, {status.PagesWrong} pages wrong")));
        }

        if (status.Listen is { } listen && status.Migration is null)
        {
            rows.Add(new Text($"listens on {listen}"));
        }

        if (status.Error is { } error)
        {
            rows.Add(new Text(error));
        }

        return new Panel(new Rows(rows)) { Header = new PanelHeader(Markup.Escape(Phase(status))), Border = BoxBorder.Rounded, Expand = true };
    }

    private static string Mib(double mebibytes) => Text($"{mebibytes:N1} MiB");

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private void TellDecisions(MigrationStatus? migration)
    {
        for (; !_json && _decisionsTold < migration?.Decisions?.Count; _decisionsTold++)
        {
            _output.WriteLine(migration.Decisions[_decisionsTold]);
        }
    }
}
