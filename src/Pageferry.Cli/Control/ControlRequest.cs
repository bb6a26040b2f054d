namespace Pageferry.Cli;

/// <summary>One line that a client writes to a control socket.</summary>
internal sealed record ControlRequest
{
    /// <summary>Answers once with the guest's state.</summary>
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

    /// <summary>What to do: one of the constants of this type.</summary>
    public string? Command { get; init; }

    /// <summary>Where a migration goes, <c>HOST:PORT</c>.</summary>
    public string? To { get; init; }

    /// <summary>How it goes there; null for the defaults.</summary>
    public MigrationSettings? Migration { get; init; }

    /// <summary>Who this side is there and whom it trusts; null for loopback without TLS.</summary>
    public SecuritySettings? Security { get; init; }
}
