using System.Globalization;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What a report says in words and numbers: each fact with its name.</summary>
internal static class ReportFacts
{
    /// <summary>What is shown of a commit's hash.</summary>
    private const int ShortHash = 10;

    /// <summary>The few facts that stand on top.</summary>
    internal static IEnumerable<(string Name, string Value, string? Detail)> Key(MigrationReport report)
    {
        MigrationStatus migration = report.Status.Migration!;
        if (migration.DowntimeMs is { } downtime)
        {
            yield return ("downtime", Ms(downtime), report.Options is { DowntimeLimitMs: { } limit, Mode: not "postcopy" } ? $"limit {Ms(limit)}" : null);
        }

        yield return ("total time", Ms(migration.TotalMs), migration.Round is { } rounds ? rounds == 1 ? "1 round of pre-copy" : Text($"{rounds} rounds of pre-copy") : null);
        yield return ("on the wire", MemorySize.FormatMeasured(migration.Bytes), GainOf(migration));
        ulong content = ContentOf(migration);
        yield return ("pages with content", Text($"{content:N0}"), Text($"{content * 100.0 / Math.Max(1, migration.PagesTotal):0.#} % of the guest's {migration.PagesTotal:N0}"));
        if (migration.PagesDemand + migration.PagesBackground > 0)
        {
            yield return ("the guest waited for", Text($"{migration.PagesDemand:N0} pages"), Text($"{migration.PagesBackground:N0} came before it touched them"));
        }

        if (migration.FaultLatencyUs is { } us)
        {
            yield return ("a wait for a page, p50", Us(us.P50), $"p99 {Us(us.P99)}, max {Us(us.Max)}");
        }
    }

    /// <summary>What was moved, between whom, and how it ended.</summary>
    internal static IEnumerable<(string Name, string Value)> WhoAndWhat(MigrationReport report)
    {
        VmStatus status = report.Status;
        MigrationStatus migration = status.Migration!;
        yield return ("outcome", report.Error is null ? migration.Phase : $"{migration.Phase}: {report.Error}");
        yield return ("seen from", $"the {migration.Role}: {report.Machine}, process {status.Pid}");
        yield return (migration.Role == "source" ? "destination" : "source", migration.Peer ?? "unknown");
        yield return ("under TLS", migration.Tls ? "yes" : "no");
        yield return ("guest", report.Guest?.ToString() ?? "unknown");
        yield return ("memory", $"{MemorySize.Format(migration.PagesTotal * Page.Size)}{(status.Backing is null ? string.Empty : $", {status.Backing}")}, {migration.PagesTotal:N0} pages");
        if (status.Host is { } host)
        {
            yield return ("vCPUs", Text($"{status.Vcpus}, on {host}"));
        }

        if (status.Delivery is { } delivery)
        {
            yield return ("userfaults by", delivery);
        }

        if (status.PagesChecked is > 0 and var pages)
        {
            yield return ("checked by the guest", Text($"{pages:N0} pages on every host together, {status.PagesWrong:N0} wrong"));
        }

        yield return ("pageferry", report.Version[..Math.Min(report.Version.Length, report.Version.IndexOf('+') is >= 0 and var plus ? plus + 1 + ShortHash : int.MaxValue)]);
        yield return ("protocol version", report.ProtocolVersion is { } version ? Text($"{version}") : "none agreed on");
        yield return ("kernel", report.Kernel);
        yield return ("written", report.WrittenAt);
    }

    /// <summary>What the migration did.</summary>
    internal static IEnumerable<(string Name, string Value)> Done(MigrationReport report)
    {
        MigrationStatus migration = report.Status.Migration!;
        yield return ("pages, pre-copy", Text($"{migration.PagesPrecopy:N0}, each as often as it went"));
        yield return ("pages, demand", Text($"{migration.PagesDemand:N0}"));
        yield return ("pages, background", Text($"{migration.PagesBackground:N0}"));
        yield return ("pages, zero", Text($"{migration.PagesZero:N0}"));
        yield return ("pages damaged on their way", Text($"{migration.PagesDamaged:N0}{(migration.PagesDamaged > 0 ? ", sent again" : string.Empty)}"));
        yield return ("bytes on the wire", Text($"{migration.Bytes:N0}"));
        if (GainOf(migration) is { } gain)
        {
            yield return ("compression and deltas", gain);
        }

        if (report.Samples.ThrottlePercent.DefaultIfEmpty().Max() is > 0 and var throttle)
        {
            yield return ("vCPUs throttled by up to", Text($"{throttle} %"));
        }

        if (migration.BackgroundMibPerS is > 0 and var background)
        {
            yield return ("background throughput", Text($"{background:N0} MiB/s"));
        }

        foreach ((string name, string value) in Asked(report.Options))
        {
            yield return (name, value);
        }

        if (report.Options is { Validate: true })
        {
            yield return ("validation", migration.Phase == "completed" ? "every page's digest was equal on both sides" : "asked for, and not reached");
        }
    }

    /// <summary>Milliseconds, or seconds where these are many.</summary>
    internal static string Ms(double ms) => ms >= 10_000 ? Text($"{ms / 1000:#,0.0} s") : ms >= 100 ? Text($"{ms:#,0} ms") : Text($"{ms:0.0} ms");

    /// <summary>Microseconds.</summary>
    internal static string Us(double us) => us >= 10_000 ? Ms(us / 1000) : us >= 1_000 ? Text($"{us / 1000:0.00} ms") : us >= 100 ? Text($"{us:#,0} µs") : Text($"{us:0.#} µs");

    private static ulong ContentOf(MigrationStatus migration) => migration.PagesPrecopy + migration.PagesDemand + migration.PagesBackground;

    /// <returns>How much shorter content became on the wire; null if it did not.</returns>
    private static string? GainOf(MigrationStatus migration)
    {
        double gain = ContentOf(migration) * (double)Page.Size / Math.Max(1, migration.Bytes);
        return gain > 1.005 ? Text($"content is {gain:0.##}× as long") : null;
    }

    private static IEnumerable<(string Name, string Value)> Asked(MigrationSettings? options)
    {
        if (options is null)
        {
            yield break;
        }

        string timeout = options.TimeoutMs is > 0 and var ms ? $"{Ms(ms)}, then {options.OnTimeout ?? "cancel"}" : "none";
        foreach ((string name, string? value) in ((string, string?)[])[
            ("--mode", options.Mode),
            ("--downtime-limit", options.DowntimeLimitMs is { } limit ? Ms(limit) : null),
            ("--connections", options.Connections is { } connections ? Text($"{connections}") : null),
            ("--compression", options.Compression),
            ("--max-bandwidth", Rate(options.MaxBandwidth)),
            ("--max-postcopy-bandwidth", Rate(options.MaxPostcopyBandwidth)),
            ("--timeout", timeout),
            ("--auto-converge", options.AutoConverge ? "yes" : "no"),
            ("--validate", options.Validate ? "yes" : "no")])
        {
            yield return (name, value ?? "default");
        }
    }

    private static string Rate(long? bytes) => bytes is > 0 and var rate ? $"{MemorySize.FormatMeasured((ulong)rate)}/s" : "as much as goes";

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
