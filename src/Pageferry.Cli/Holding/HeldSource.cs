namespace Pageferry.Cli;

/// <summary>The blob that a source leaves at a holder, as JSON: how to go on with its migration. The guest's memory and its machine state are files beside it.</summary>
internal sealed record HeldSource
{
    /// <summary>The form that this build writes and reads.</summary>
    internal const int CurrentVersion = 1;

    /// <summary>Its form.</summary>
    public required int Version { get; init; }

    /// <summary>Where the destination is, <c>HOST:PORT</c>.</summary>
    public required string To { get; init; }

    /// <summary>How the guest was to be moved.</summary>
    public required MigrationSettings Migration { get; init; }

    /// <summary>Who the source is and whom it trusts, by the paths of files; null for loopback without TLS.</summary>
    public SecuritySettings? Security { get; init; }

    /// <summary>What <see cref="Pageferry.Migration.SourceRecord"/> writes.</summary>
    public required byte[] Record { get; init; }
}
