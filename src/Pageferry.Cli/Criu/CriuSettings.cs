using Microsoft.Extensions.Logging;

namespace Pageferry.Cli;

/// <summary>How a command that takes the place of one of CRIU's runs. Paths are absolute.</summary>
internal sealed record CriuSettings
{
    /// <summary>The directory of the images.</summary>
    public required string ImagesDirectory { get; init; }

    /// <summary>Where other files are.</summary>
    public required string WorkDirectory { get; init; }

    /// <summary>The log file; null for standard error.</summary>
    public string? LogFile { get; init; }

    /// <summary>The least important level that is logged.</summary>
    public LogLevel LogLevel { get; init; }

    /// <summary>Whether to go into the background once it is ready.</summary>
    public bool InBackground { get; init; }

    /// <summary>Whether this is the process that another one put into the background, and that it waits for.</summary>
    public bool IsInBackground { get; init; }

    /// <summary>The file for the process id; null for none.</summary>
    public string? PidFile { get; init; }

    /// <summary>The file descriptor that hears when it is ready; null for none.</summary>
    public int? StatusFd { get; init; }
}
