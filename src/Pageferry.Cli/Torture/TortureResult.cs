namespace Pageferry.Cli;

/// <summary>What came of a run.</summary>
internal sealed record TortureResult
{
    /// <summary>What was done.</summary>
    public required TorturePlan Plan { get; init; }

    /// <summary>How it ended.</summary>
    public required TortureOutcome Outcome { get; init; }

    /// <summary>What happened, and when.</summary>
    public required IReadOnlyList<string> Events { get; init; }

    /// <summary>The longest that the guest stood still, in milliseconds: in the switchover, or for one page.</summary>
    public double LongestStallMs { get; init; }

    /// <summary>How often the link was lost after the switchover and found again.</summary>
    public int Reconnects { get; init; }

    /// <summary>What must not be, for a reader; null if nothing was found.</summary>
    public string? Error { get; init; }
}
