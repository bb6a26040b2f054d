using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>How a guest is to be moved, as a control request carries it: <see cref="MigrationOptions"/> in words. What is null is left to the default.</summary>
internal sealed record MigrationSettings
{
    /// <summary>When memory goes: <c>auto</c>, <c>precopy</c> or <c>postcopy</c>.</summary>
    public string? Mode { get; init; }

    /// <summary>How long the guest may stand still, in milliseconds.</summary>
    public double? DowntimeLimitMs { get; init; }

    /// <summary>Background connections.</summary>
    public int? Connections { get; init; }

    /// <summary>How background pages are compressed: <c>none</c>, <c>lz4</c>, <c>zstd</c> or <c>auto</c>.</summary>
    public string? Compression { get; init; }

    /// <summary>Most bytes per second before the switchover.</summary>
    public long? MaxBandwidth { get; init; }

    /// <summary>Most bytes per second of background pages after it.</summary>
    public long? MaxPostcopyBandwidth { get; init; }

    /// <summary>How long pre-copy may take, in milliseconds.</summary>
    public double? TimeoutMs { get; init; }

    /// <summary>What happens then: <c>cancel</c>, <c>ignore</c> or <c>postcopy</c>.</summary>
    public string? OnTimeout { get; init; }

    /// <summary>How long a link that was lost after the switchover is looked for, in milliseconds; null for as long as it takes.</summary>
    public double? ReconnectForMs { get; init; }

    /// <summary>How long a connection may be silent after the switchover, in milliseconds.</summary>
    public double? LinkTimeoutMs { get; init; }

    /// <summary>Whether a guest that writes too fast is slowed down.</summary>
    public bool AutoConverge { get; init; }

    /// <summary>What has to tell the guest's writes: one of the constants of <see cref="DirtyTrackingWord"/>; the guest was made with it or is not moved.</summary>
    public string? DirtyTracking { get; init; }

    /// <summary>Whether every page is compared at the end.</summary>
    public bool Validate { get; init; }

    /// <summary>Where a report is to be written, an absolute path; null for none.</summary>
    public string? Report { get; init; }

    /// <summary>The options.</summary>
    /// <exception cref="CommandException">A word or number is none that the option has.</exception>
    internal MigrationOptions ToOptions()
    {
        var defaults = new MigrationOptions();
        try
        {
            return defaults with
            {
                Mode = Word(Mode, defaults.Mode),
                DowntimeLimit = Time(DowntimeLimitMs) ?? defaults.DowntimeLimit,
                Connections = Connections ?? defaults.Connections,
                Compression = Word(Compression, defaults.Compression),
                MaxBandwidth = MaxBandwidth ?? defaults.MaxBandwidth,
                MaxPostcopyBandwidth = MaxPostcopyBandwidth ?? defaults.MaxPostcopyBandwidth,
                Timeout = Time(TimeoutMs) ?? defaults.Timeout,
                OnTimeout = Word(OnTimeout, defaults.OnTimeout),
                ReconnectFor = Time(ReconnectForMs) ?? defaults.ReconnectFor,
                LinkTimeout = Time(LinkTimeoutMs) ?? defaults.LinkTimeout,
                AutoConverge = AutoConverge,
                Validate = Validate,
            };
        }
        catch (OverflowException)
        {
            throw new CommandException("The request has a time that is too long.");
        }
    }

    private static TimeSpan? Time(double? milliseconds) => milliseconds is { } time ? TimeSpan.FromMilliseconds(time) : null;

    private static T Word<T>(string? word, T otherwise)
        where T : struct, Enum => word is null
            ? otherwise
            : Enum.TryParse(word, ignoreCase: true, out T value) && Enum.IsDefined(value)
                ? value
                : throw new CommandException($"'{word}' is none of: {string.Join(", ", Enum.GetNames<T>()).ToLowerInvariant()}.");
}
