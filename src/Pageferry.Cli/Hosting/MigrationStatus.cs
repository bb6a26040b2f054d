using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>How a migration stands, seen from one of its two sides.</summary>
internal sealed record MigrationStatus
{
    /// <summary><c>source</c> or <c>destination</c>.</summary>
    public required string Role { get; init; }

    /// <summary>The other side's address, <c>HOST:PORT</c>.</summary>
    public string? Peer { get; init; }

    /// <summary>Whether the connections are under TLS.</summary>
    public bool Tls { get; init; }

    /// <summary>
    /// The phase: <c>preparing</c>, <c>pre_copy</c>, <c>switching_over</c>, <c>post_copy</c>, <c>postcopy_paused</c>, <c>completed</c>, <c>failed</c>,
    /// <c>cancelled</c>, <c>stalled</c>, <c>exported</c>, <c>rolled_back</c> or <c>mismatched</c>.
    /// </summary>
    public required string Phase { get; init; }

    /// <summary>The guest's pages.</summary>
    public required ulong PagesTotal { get; init; }

    /// <summary>Pages that are at the destination and up to date there, zero pages included.</summary>
    public required ulong PagesDone { get; init; }

    /// <summary>Pages of this round, or of the rest after the switchover, that the destination does not have.</summary>
    public required ulong PagesRemaining { get; init; }

    /// <summary>Pages with content that went before the switchover, each as often as it went.</summary>
    public required ulong PagesPrecopy { get; init; }

    /// <summary>Pages that went because the guest waited for them.</summary>
    public required ulong PagesDemand { get; init; }

    /// <summary>Pages with content that went after the switchover before the guest asked.</summary>
    public required ulong PagesBackground { get; init; }

    /// <summary>Pages that are zero and went without content, each as often as it went.</summary>
    public required ulong PagesZero { get; init; }

    /// <summary>Pages that were damaged on their way and sent again.</summary>
    public required ulong PagesDamaged { get; init; }

    /// <summary>Bytes on the wire, headers included.</summary>
    public required ulong Bytes { get; init; }

    /// <summary>Bytes on the wire per second in the last second, or in the time since somebody asked before that, in MiB; null when there were none.</summary>
    public double? BytesMibPerS { get; init; }

    /// <summary>Milliseconds since the migration began, or that it took.</summary>
    public required double TotalMs { get; init; }

    /// <summary>Milliseconds from the guest's stop to its first instruction on the destination; null until known, and on the destination.</summary>
    public double? DowntimeMs { get; init; }

    /// <summary>Throughput of background pages after the switchover in MiB/s; 0 before.</summary>
    public required double BackgroundMibPerS { get; init; }

    /// <summary>The round of pre-copy, from 1; null before and on the destination.</summary>
    public int? Round { get; init; }

    /// <summary>Memory moved per second in the last round, in MiB; null before its end.</summary>
    public double? BandwidthMibPerS { get; init; }

    /// <summary>Memory that the guest made dirty per second in the last round, in MiB; null before its end.</summary>
    public double? DirtyMibPerS { get; init; }

    /// <summary>Milliseconds that the guest would stand still if it stopped now; null before the end of a round.</summary>
    public double? ExpectedDowntimeMs { get; init; }

    /// <summary>The share of time that the vCPUs are kept from running; null if they aren't.</summary>
    public int? ThrottlePercent { get; init; }

    /// <summary>What was decided, and why; null on the destination.</summary>
    public IReadOnlyList<string>? Decisions { get; init; }

    /// <summary>What is waited for while the link is lost after the switchover, for a reader; null while it isn't.</summary>
    public string? WaitsFor { get; init; }

    /// <summary>Milliseconds that it has been waited for; null while the link isn't lost.</summary>
    public double? WaitedMs { get; init; }

    /// <summary>The userfault that has waited longest, if that is too long; null if none has, and on the source.</summary>
    public StallStatus? Stall { get; init; }

    /// <summary>How often the link was lost after the switchover and found again.</summary>
    public required int Reconnects { get; init; }

    /// <summary>Where the report of the migration is; null before it is written, and if none was asked for.</summary>
    public string? Report { get; init; }

    /// <summary>Why the report that was asked for could not be written; null if it could.</summary>
    public string? ReportError { get; init; }

    /// <summary>Userfaults that needed a page from the source; null on the source.</summary>
    public ulong? DemandFaults { get; init; }

    /// <summary>How long those faults took; null on the source and before the first.</summary>
    public FaultLatency? FaultLatencyUs { get; init; }

    /// <summary>How long those of the last second took, or of the time since somebody asked before that; null when there were none.</summary>
    public FaultLatency? FaultLatencyNowUs { get; init; }

    /// <summary>The part of the status that both sides have.</summary>
    /// <param name="progress">How far the migration is.</param>
    /// <returns>The status, with no role yet.</returns>
    internal static MigrationStatus Of(MigrationProgress progress) => new()
    {
        Role = string.Empty,
        Phase = progress.Phase switch
        {
            MigrationPhase.Waiting => "waiting",
            MigrationPhase.Preparing => "preparing",
            MigrationPhase.PreCopy => "pre_copy",
            MigrationPhase.SwitchingOver => "switching_over",
            MigrationPhase.PostCopy => "post_copy",
            MigrationPhase.Paused => "postcopy_paused",
            MigrationPhase.Completed => "completed",
            MigrationPhase.Failed => "failed",
            MigrationPhase.Cancelled => "cancelled",
            MigrationPhase.Exported => "exported",
            MigrationPhase.RolledBack => "rolled_back",
            MigrationPhase.Mismatched => "mismatched",
            _ => "stalled",
        },
        PagesTotal = (ulong)progress.PagesTotal,
        PagesDone = (ulong)progress.PagesDone,
        PagesRemaining = (ulong)progress.PagesRemaining,
        BackgroundMibPerS = progress.BackgroundMibPerSecond,
        PagesPrecopy = (ulong)progress.PagesPrecopy,
        PagesDamaged = (ulong)progress.PagesDamaged,
        PagesDemand = (ulong)progress.PagesDemand,
        PagesBackground = (ulong)progress.PagesBackground,
        PagesZero = (ulong)progress.PagesZero,
        Bytes = (ulong)progress.BytesSent,
        TotalMs = progress.Total.TotalMilliseconds,
        Reconnects = progress.Reconnects,
        WaitsFor = progress.WaitsFor,
        WaitedMs = progress.WaitsFor is null ? null : progress.WaitedFor.TotalMilliseconds,
    };
}
