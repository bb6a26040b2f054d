using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>How a migration stands, seen from one of its two sides.</summary>
internal sealed record MigrationStatus
{
    /// <summary><c>source</c> or <c>destination</c>.</summary>
    public required string Role { get; init; }

    /// <summary>The other side's address, <c>HOST:PORT</c>.</summary>
    public string? Peer { get; init; }

    /// <summary>The phase: <c>preparing</c>, <c>switching_over</c>, <c>post_copy</c>, <c>completed</c>, <c>failed</c> or <c>stalled</c>.</summary>
    public required string Phase { get; init; }

    /// <summary>The guest's pages.</summary>
    public required ulong PagesTotal { get; init; }

    /// <summary>Pages sent (source) or here (destination), zero pages included.</summary>
    public required ulong PagesDone { get; init; }

    /// <summary>Pages that went because the guest waited for them.</summary>
    public required ulong PagesDemand { get; init; }

    /// <summary>Pages with content that went before the guest asked.</summary>
    public required ulong PagesBackground { get; init; }

    /// <summary>Pages that are zero and went without content.</summary>
    public required ulong PagesZero { get; init; }

    /// <summary>Bytes on the wire, headers included.</summary>
    public required ulong Bytes { get; init; }

    /// <summary>Milliseconds since the migration began, or that it took.</summary>
    public required double TotalMs { get; init; }

    /// <summary>Milliseconds from the guest's stop to its first instruction on the destination; null until known, and on the destination.</summary>
    public double? DowntimeMs { get; init; }

    /// <summary>Throughput of the background connection in MiB/s; null while there is none, and on the destination.</summary>
    public double? BackgroundMibPerS { get; init; }

    /// <summary>Userfaults that needed a page from the source; null on the source.</summary>
    public ulong? DemandFaults { get; init; }

    /// <summary>How long those faults took; null on the source and before the first.</summary>
    public FaultLatency? FaultLatencyUs { get; init; }

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
            MigrationPhase.SwitchingOver => "switching_over",
            MigrationPhase.PostCopy => "post_copy",
            MigrationPhase.Completed => "completed",
            MigrationPhase.Failed => "failed",
            _ => "stalled",
        },
        PagesTotal = (ulong)progress.PagesTotal,
        PagesDone = (ulong)(progress.PagesDemand + progress.PagesBackground + progress.PagesZero),
        PagesDemand = (ulong)progress.PagesDemand,
        PagesBackground = (ulong)progress.PagesBackground,
        PagesZero = (ulong)progress.PagesZero,
        Bytes = (ulong)progress.BytesSent,
        TotalMs = progress.Total.TotalMilliseconds,
    };
}
