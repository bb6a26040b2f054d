namespace Pageferry.Migration;

/// <summary>How a guest is moved away.</summary>
public sealed record MigrationOptions
{
    /// <summary>The most background connections.</summary>
    public const int MostConnections = Hello.MostBackground;

    /// <summary>The default of <see cref="LinkTimeout"/>: 5 s.</summary>
    public static readonly TimeSpan DefaultLinkTimeout = TimeSpan.FromSeconds(5);

    /// <summary>The least of <see cref="LinkTimeout"/>: 100 ms.</summary>
    public static readonly TimeSpan LeastLinkTimeout = TimeSpan.FromMilliseconds(100);

    /// <summary>The most of <see cref="LinkTimeout"/>: 1 h.</summary>
    public static readonly TimeSpan MostLinkTimeout = TimeSpan.FromHours(1);

    /// <summary>The least bandwidth: 64 KiB per second. With less, a batch would take so long that the peer hears nothing for too long.</summary>
    public const long LeastBandwidth = 64 << 10;

    /// <summary>When memory goes: before the guest, after it, or what is measured to be right.</summary>
    public MigrationMode Mode { get; init; } = MigrationMode.Auto;

    /// <summary>How long the guest may stand still; more than zero. Pre-copy goes on until what is left is expected to take less.</summary>
    public TimeSpan DowntimeLimit { get; init; } = TimeSpan.FromMilliseconds(300);

    /// <summary>Connections for the pages that the guest doesn't wait for: 1 to <see cref="MostConnections"/>. Those that it waits for have one of their own.</summary>
    public int Connections { get; init; } = 2;

    /// <summary>How background pages are compressed.</summary>
    public MigrationCompression Compression { get; init; }

    /// <summary>Most bytes per second before the switchover, over all connections: <see cref="LeastBandwidth"/> or more; 0 for as many as go.</summary>
    public long MaxBandwidth { get; init; }

    /// <summary>Most bytes per second after the switchover, of pages that the guest doesn't wait for: <see cref="LeastBandwidth"/> or more; 0 for as many as go.</summary>
    public long MaxPostcopyBandwidth { get; init; }

    /// <summary>How long pre-copy may take; zero for as long as it takes.</summary>
    public TimeSpan Timeout { get; init; }

    /// <summary>What happens when pre-copy has taken that long.</summary>
    public MigrationTimeoutAction OnTimeout { get; init; }

    /// <summary>Whether the guest is slowed down when it writes faster than pre-copy sends (<see cref="MigrationMode.Precopy"/>).</summary>
    public bool AutoConverge { get; init; }

    /// <summary>Whether the digest of every page, as it arrived, is compared with the source's memory at the end.</summary>
    public bool Validate { get; init; }

    /// <summary>How long a link that was lost after switchover is looked for; <see cref="System.Threading.Timeout.InfiniteTimeSpan"/> for as long as it takes.</summary>
    public TimeSpan ReconnectFor { get; init; } = System.Threading.Timeout.InfiniteTimeSpan;

    /// <summary>How long a connection may be silent after switchover until its link counts as lost: <see cref="LeastLinkTimeout"/> to <see cref="MostLinkTimeout"/>.</summary>
    public TimeSpan LinkTimeout { get; init; } = DefaultLinkTimeout;

    /// <summary>Who this side is and whom it trusts: every connection is then under TLS. Null for connections without TLS, to loopback only.</summary>
    public MigrationSecurity? Security { get; init; }

    /// <summary>
    /// Whether to connect beyond loopback without TLS. Anyone on the way can then read and change the guest's memory and machine state.
    /// </summary>
    public bool InsecureNetwork { get; init; }

    /// <summary>Keeps what the guest is served from after the switchover, so that it outlives this process; null for nobody.</summary>
    public ISourceKeeper? Keeper { get; init; }

    /// <summary>The protocol versions to speak.</summary>
    public VersionRange Versions { get; init; } = VersionRange.Current;

    /// <exception cref="ArgumentException">A value is out of its range.</exception>
    internal void Check()
    {
        if (Connections is < 1 or > MostConnections)
        {
            throw new ArgumentException($"A migration has 1 to {MostConnections} background connections, not {Connections}.");
        }

        _ = CheckedLinkTimeout(LinkTimeout);
        if (ReconnectFor < TimeSpan.Zero && ReconnectFor != System.Threading.Timeout.InfiniteTimeSpan)
        {
            throw new ArgumentException("A time to reconnect is zero, for not at all, or more.");
        }

        if (DowntimeLimit <= TimeSpan.Zero || Timeout < TimeSpan.Zero)
        {
            throw new ArgumentException("A downtime limit is more than zero; a timeout is zero, for none, or more.");
        }

        if (MaxBandwidth is < 0 or (> 0 and < LeastBandwidth) || MaxPostcopyBandwidth is < 0 or (> 0 and < LeastBandwidth))
        {
            throw new ArgumentException($"A bandwidth is zero, for as much as goes, or at least {LeastBandwidth} bytes per second.");
        }
    }

    /// <exception cref="ArgumentException">It is out of its range.</exception>
    internal static TimeSpan CheckedLinkTimeout(TimeSpan linkTimeout) => linkTimeout >= LeastLinkTimeout && linkTimeout <= MostLinkTimeout
        ? linkTimeout
        : throw new ArgumentException($"A link timeout is {LeastLinkTimeout.TotalMilliseconds:0} ms to {MostLinkTimeout.TotalHours:0} h, not {linkTimeout}.");
}
