namespace Pageferry.Migration;

/// <summary>A migration at one moment, seen from one side.</summary>
public readonly record struct MigrationProgress
{
    /// <summary>How far it is.</summary>
    public required MigrationPhase Phase { get; init; }

    /// <summary>The guest's pages.</summary>
    public long PagesTotal { get; init; }

    /// <summary>Pages sent or received because the guest waited for them.</summary>
    public long PagesDemand { get; init; }

    /// <summary>Pages sent or received with content before the switchover: each as often as it went.</summary>
    public long PagesPrecopy { get; init; }

    /// <summary>Pages sent or received with content after the switchover before the guest touched them.</summary>
    public long PagesBackground { get; init; }

    /// <summary>Pages that are zero and went as a number: each as often as it went.</summary>
    public long PagesZero { get; init; }

    /// <summary>Pages whose content was damaged on its way, and was asked for again.</summary>
    public long PagesDamaged { get; init; }

    /// <summary>Pages that the destination does not have as they were when the round, or the rest after the switchover, began (QEMU: remaining).</summary>
    public long PagesRemaining { get; init; }

    /// <summary>Pages that are at the destination, as they are at the source as far as that is known.</summary>
    public long PagesDone => PagesTotal - PagesRemaining;

    /// <summary>Bytes that the source has sent, or the destination received, headers included.</summary>
    public long BytesSent { get; init; }

    /// <summary>
    /// Guest stopped at the source → the source learned that it had executed at the destination, by the source's clock: an upper bound.
    /// Zero while unknown, and at the destination.
    /// </summary>
    public TimeSpan Downtime { get; init; }

    /// <summary>Time since the migration began; final when it has ended.</summary>
    public TimeSpan Total { get; init; }

    /// <summary>Rate of pages after the switchover that nobody waited for, from the first to the last, or to now.</summary>
    public double BackgroundMibPerSecond { get; init; }

    /// <summary>The round of pre-copy, from 1; 0 before (QEMU: dirty-sync-count).</summary>
    public int Round { get; init; }

    /// <summary>Memory moved per second in the last round measured; more than the link carries where pages are zero or compressed.</summary>
    public double BandwidthMibPerSecond { get; init; }

    /// <summary>Memory that the guest made dirty per second in the last round (QEMU: dirty-pages-rate).</summary>
    public double DirtyMibPerSecond { get; init; }

    /// <summary>The downtime to expect if the guest stopped now (QEMU: expected-downtime).</summary>
    public TimeSpan ExpectedDowntime { get; init; }

    /// <summary>The share of time that the guest's vCPUs are kept from running, 0 to 99 (QEMU: cpu-throttle-percentage).</summary>
    public int ThrottlePercent { get; init; }

    /// <summary>How often the link was lost after switchover and found again.</summary>
    public int Reconnects { get; init; }

    /// <summary>What is waited for while the link is lost, for a reader; null while it isn't.</summary>
    public string? WaitsFor { get; init; }

    /// <summary>How long that has been waited for; zero while nothing is.</summary>
    public TimeSpan WaitedFor { get; init; }

    /// <summary>The version of the protocol that both sides agreed on; 0 before.</summary>
    public int ProtocolVersion { get; init; }
}
