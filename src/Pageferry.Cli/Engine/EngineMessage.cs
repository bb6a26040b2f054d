namespace Pageferry.Cli;

/// <summary>
/// What the process of a guest and its engine's process say to each other: a packet each, as JSON. The engine calls, and is given orders; each is answered by one
/// message with the same number.
/// </summary>
internal sealed record EngineMessage
{
    /// <summary>The version of what they say; a build that is newer says so, and who does not know it refuses by name.</summary>
    internal const int CurrentVersion = 1;

    /// <summary>The engine's first call: <see cref="Version"/> and <see cref="Build"/>. Answered with <see cref="Settings"/> and, if a guest is here, <see cref="View"/>.</summary>
    internal const string Hello = "hello";

    /// <summary>The engine has taken over what there was: it is the one from now on.</summary>
    internal const string Ready = "ready";

    /// <summary>The engine ends; <see cref="Text"/> says why.</summary>
    internal const string Refused = "refused";

    /// <summary>The engine has begun a record of a guest, whose file comes along. Answered with <see cref="View"/>.</summary>
    internal const string Prepare = "prepare";

    /// <summary>The machine state: a file of <see cref="Count"/> bytes comes along.</summary>
    internal const string Load = "load";

    /// <summary>Lets the vCPUs run, unless <see cref="IsPaused"/> or they do. Answered with whether it is known that they have.</summary>
    internal const string Start = "start";

    /// <summary>The source has taken the guest back: it is stopped for good. So it is when it is taken out, but then who orders that stops it.</summary>
    internal const string Stop = "stop";

    /// <summary>Unmaps <see cref="Count"/> pages from <see cref="Page"/> on from the guest view.</summary>
    internal const string Unmap = "unmap";

    /// <summary>Every page is here or zero: no access is a userfault any more.</summary>
    internal const string Unregister = "unregister";

    /// <summary>Makes huge pages of small ones.</summary>
    internal const string Collapse = "collapse";

    /// <summary>The guest does not run here, and is given up.</summary>
    internal const string Drop = "drop";

    /// <summary>A source failed before the switchover: <see cref="Text"/> says how. What there is to report comes along, if that is wanted.</summary>
    internal const string TurnedAway = "turned-away";

    /// <summary>The arrival is over: <see cref="Status"/> is how. What there is to report comes along, if that is wanted.</summary>
    internal const string Arrived = "arrived";

    /// <summary>The source was given up after the switchover: <see cref="Text"/> says why. The engine waits for <see cref="Resume"/>. What there is to report comes along, if that is wanted.</summary>
    internal const string Failed = "failed";

    /// <summary>The engine logs <see cref="Text"/>.</summary>
    internal const string Log = "log";

    /// <summary>An order: answered with <see cref="Status"/>.</summary>
    internal const string Ask = "ask";

    /// <summary>An order: the guest has executed.</summary>
    internal const string Executed = "executed";

    /// <summary>An order: the source is to be waited for again.</summary>
    internal const string Resume = "resume";

    /// <summary>An order: the guest, whose link is lost, is taken out. A source that comes back hears so from now on.</summary>
    internal const string Export = "export";

    /// <summary>What it is: one of the constants of this type.</summary>
    public required string What { get; init; }

    /// <summary>Its number, which its answer has too.</summary>
    public long Number { get; init; }

    /// <summary>In an answer, why it could not be done; null if it was.</summary>
    public string? Error { get; init; }

    /// <summary>The version of what the engine says.</summary>
    public int? Version { get; init; }

    /// <summary>The version of the engine's program.</summary>
    public string? Build { get; init; }

    /// <summary>How to take a guest in.</summary>
    public EngineSettings? Settings { get; init; }

    /// <summary>Where the guest's memory is.</summary>
    public EngineView? View { get; init; }

    /// <summary>A text for a reader.</summary>
    public string? Text { get; init; }

    /// <summary>The first page.</summary>
    public ulong? Page { get; init; }

    /// <summary>How many pages or bytes.</summary>
    public ulong? Count { get; init; }

    /// <summary>Whether the guest is to stand still.</summary>
    public bool? IsPaused { get; init; }

    /// <summary>Whether the guest is known to have executed.</summary>
    public bool? HasExecuted { get; init; }

    /// <summary>How the arrival stands.</summary>
    public MigrationStatus? Status { get; init; }
}
