namespace Pageferry.Cli;

/// <summary>One line that a client writes to a control socket.</summary>
internal sealed record ControlRequest
{
    /// <summary>Answers with the guest's state: once, or with progress until the process ends.</summary>
    internal const string Status = "status";

    /// <summary>Ends the guest and its process.</summary>
    internal const string Stop = "stop";

    /// <summary>Moves the guest to <see cref="To"/>; answers with progress until it is done.</summary>
    internal const string Migrate = "migrate";

    /// <summary>Has the guest stand still, here or, if it moves so, where it arrives.</summary>
    internal const string Pause = "pause";

    /// <summary>Lets the guest go on.</summary>
    internal const string Resume = "resume";

    /// <summary>Ends a migration that is under way: the guest goes on here.</summary>
    internal const string Cancel = "cancel";

    /// <summary>
    /// Goes on with a migration that lost its link after the switchover: looks for the destination at <see cref="To"/>, now, or waits for the source again.
    /// </summary>
    internal const string Recover = "recover";

    /// <summary>Writes what this side has of a guest whose link is lost to <see cref="Output"/>; answers with progress until it is done.</summary>
    internal const string Export = "export";

    /// <summary>Has the guest go on here as it was at the switchover, once the destination has dropped it.</summary>
    internal const string Rollback = "rollback";

    /// <summary>Makes userfaults of accesses to <see cref="Ranges"/>.</summary>
    internal const string Arm = "arm";

    /// <summary>Lets the guest access <see cref="Ranges"/> again.</summary>
    internal const string Disarm = "disarm";

    /// <summary>Has <see cref="Program"/> be the engine that takes the guest in, or starts the one that is anew.</summary>
    internal const string ReplaceEngine = "replace-engine";

    /// <summary>What to do: one of the constants of this type.</summary>
    public string? Command { get; init; }

    /// <summary>Whether a status is answered again and again, and for the last time when the process ends.</summary>
    public bool? Watch { get; init; }

    /// <summary>Whether the process is to end also where more is lost than the guest that runs in it.</summary>
    public bool? Yes { get; init; }

    /// <summary>Where a migration goes, <c>HOST:PORT</c>.</summary>
    public string? To { get; init; }

    /// <summary>How it goes there; null for the defaults.</summary>
    public MigrationSettings? Migration { get; init; }

    /// <summary>What is armed or disarmed, each as <see cref="GuestRange"/> is written; null or none for all memory.</summary>
    public IReadOnlyList<string>? Ranges { get; init; }

    /// <summary>Which accesses are userfaults: one of the constants of <see cref="SemanticsWord"/>; null for any.</summary>
    public string? Semantics { get; init; }

    /// <summary>What becomes of the content: one of the constants of <see cref="ContentWord"/>; null for keeping it.</summary>
    public string? Content { get; init; }

    /// <summary>The absolute path of a program; null for the one that is the engine now.</summary>
    public string? Program { get; init; }

    /// <summary>Where an export goes, an absolute path.</summary>
    public string? Output { get; init; }

    /// <summary>The socket of a holder that keeps what a migrating guest is served from, an absolute path; null for none.</summary>
    public string? Holder { get; init; }

    /// <summary>Whether a person vouches that the destination can't run the guest that is rolled back.</summary>
    public bool? DestinationIsFenced { get; init; }

    /// <summary>Who this side is there and whom it trusts; null for loopback without TLS.</summary>
    public SecuritySettings? Security { get; init; }
}
