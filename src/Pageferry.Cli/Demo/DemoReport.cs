namespace Pageferry.Cli;

/// <summary>What the demo found: the object that <c>demo --json</c> writes. docs/cli.md explains each field.</summary>
internal sealed record DemoReport
{
    /// <summary>Whether every check held: no page wrong on either side, all memory arrived, every page checked after the move.</summary>
    public required bool Ok { get; init; }

    /// <summary>What didn't hold, for a reader; null when <see cref="Ok"/>.</summary>
    public string? Error { get; init; }

    /// <summary>What ran the guest: <c>kvm</c> or <c>threads</c>.</summary>
    public required string Host { get; init; }

    /// <summary>The guest's name or path.</summary>
    public required string Guest { get; init; }

    /// <summary>The guest's memory in bytes.</summary>
    public required ulong MemoryBytes { get; init; }

    /// <summary>The guest's virtual CPUs.</summary>
    public required int Vcpus { get; init; }

    /// <summary>What held the guest's memory: <c>memfd</c> or <c>anonymous</c>.</summary>
    public required string Backing { get; init; }

    /// <summary>How userfaults were delivered on the destination: <c>queue</c> or <c>exit</c>.</summary>
    public required string Delivery { get; init; }

    /// <summary>What told the guest's writes on the source: <c>log</c>, <c>ring</c> or <c>scan</c>.</summary>
    public required string DirtyTracking { get; init; }

    /// <summary>Milliseconds from the guest's stop on the source to its first instruction on the destination: an upper bound.</summary>
    public required double DowntimeMs { get; init; }

    /// <summary>Milliseconds from the migration's begin until the destination had every page.</summary>
    public required double TotalMs { get; init; }

    /// <summary>The guest's pages.</summary>
    public required ulong PagesTotal { get; init; }

    /// <summary>Pages with content sent before the guest, each as often as it went; 0 by post-copy.</summary>
    public required ulong PagesPrecopy { get; init; }

    /// <summary>Pages sent because the guest waited for them.</summary>
    public required ulong PagesDemand { get; init; }

    /// <summary>Pages sent before the guest asked.</summary>
    public required ulong PagesBackground { get; init; }

    /// <summary>Pages that are zero and went without content.</summary>
    public required ulong PagesZero { get; init; }

    /// <summary>Pages that the guest checked on the destination.</summary>
    public required ulong PagesChecked { get; init; }

    /// <summary>Pages that the guest found wrong, on both sides together.</summary>
    public required ulong PagesWrong { get; init; }

    /// <summary>Passes that the guest ended on the source.</summary>
    public required ulong PassesBefore { get; init; }

    /// <summary>Passes that the guest ended on the destination.</summary>
    public required ulong PassesAfter { get; init; }

    /// <summary>Userfaults on the destination that needed a page from the source.</summary>
    public required ulong DemandFaults { get; init; }

    /// <summary>How long they took, in microseconds.</summary>
    public required FaultLatency FaultLatencyUs { get; init; }

    /// <summary>Throughput of the background connection in MiB/s.</summary>
    public required double BackgroundMibPerS { get; init; }

    /// <summary>Bytes that the source sent, headers included.</summary>
    public required ulong BytesSent { get; init; }
}
