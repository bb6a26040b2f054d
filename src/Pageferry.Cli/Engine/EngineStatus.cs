namespace Pageferry.Cli;

/// <summary>The engine that runs in a process of its own.</summary>
internal sealed record EngineStatus
{
    /// <summary>Its process's id; null while there is none.</summary>
    public int? Pid { get; init; }

    /// <summary>The version of its program; null before it has taken over.</summary>
    public string? Version { get; init; }

    /// <summary>How often it died, or was replaced, and another one was started.</summary>
    public required int Restarts { get; init; }

    /// <summary>The longest that a guest that runs here was without one that had taken over, in milliseconds.</summary>
    public required double LongestAbsenceMs { get; init; }

    /// <summary>Why there is none, or why the last one ended, for a reader; null if none ever did.</summary>
    public string? Error { get; init; }
}
