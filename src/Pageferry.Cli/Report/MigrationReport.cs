namespace Pageferry.Cli;

/// <summary>All that a report's page shows, as its JSON block has it. docs/cli.md explains each field.</summary>
internal sealed record MigrationReport
{
    /// <summary>When it was written, UTC, ISO 8601.</summary>
    public required string WrittenAt { get; init; }

    /// <summary>The version of pageferry that wrote it.</summary>
    public required string Version { get; init; }

    /// <summary>The protocol version that both sides spoke; null if they had not agreed on any.</summary>
    public int? ProtocolVersion { get; init; }

    /// <summary>The name of the machine that wrote it.</summary>
    public required string Machine { get; init; }

    /// <summary>That machine's kernel, as <c>uname -r</c> tells it.</summary>
    public required string Kernel { get; init; }

    /// <summary>Tells the guest apart from all others; the same on both sides. Null if none came.</summary>
    public Guid? Guest { get; init; }

    /// <summary>The guest and its migration when it had ended, as <c>vm status --json</c> tells them.</summary>
    public required VmStatus Status { get; init; }

    /// <summary>Why the migration failed or was cancelled; null if neither.</summary>
    public string? Error { get; init; }

    /// <summary>What was asked for; null at the destination.</summary>
    public MigrationSettings? Options { get; init; }

    /// <summary>The migration over time.</summary>
    public required ReportSamples Samples { get; init; }

    /// <summary>When phases and rounds began, and what was decided.</summary>
    public required IReadOnlyList<ReportMoment> Moments { get; init; }

    /// <summary>Moments in the middle that were too many to keep; null if none.</summary>
    public int? MomentsLeftOut { get; init; }

    /// <summary>The guest's userfaults by their cause; empty at the source.</summary>
    public required IReadOnlyList<ReportFaults> Faults { get; init; }

    /// <summary>Which ranges of memory went how and when; null if the migration ended before that could be seen.</summary>
    public ReportMap? Map { get; init; }

    /// <summary>Makes a report of a migration that has ended.</summary>
    /// <param name="status">The guest and its migration.</param>
    /// <param name="guest">The guest's id; empty if none came.</param>
    /// <param name="recorded">What was recorded.</param>
    /// <param name="error">Why it failed; null if it didn't.</param>
    internal static MigrationReport Of(VmStatus status, Guid guest, RecordedMigration recorded, string? error) => new()
    {
        WrittenAt = DateTimeOffset.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'"),
        Version = BuildVersion.Text,
        ProtocolVersion = recorded.ProtocolVersion,
        Machine = Environment.MachineName,
        Kernel = File.ReadAllText("/proc/sys/kernel/osrelease").Trim(),
        Guest = guest == Guid.Empty ? null : guest,
        Status = status,
        Error = error,
        Samples = recorded.Samples,
        Moments = recorded.Moments,
        MomentsLeftOut = recorded.MomentsLeftOut,
        Faults = recorded.Faults,
        Map = recorded.Map,
    };
}
