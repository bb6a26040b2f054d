using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>How a guest's process behaves.</summary>
/// <param name="ControlPath">Where to make the control socket.</param>
/// <param name="Output">Where to say what happens.</param>
/// <param name="IsHeld">Whether the process stays after its guest has ended or left, until it is stopped or its standard input closes.</param>
/// <param name="Delivery">How userfaults are delivered: one of the constants of <see cref="DeliveryWord"/>.</param>
/// <param name="Report">Where a report of a guest's arrival goes, an absolute path; null for none.</param>
internal sealed record VmProcessOptions(string ControlPath, VmOutput Output, bool IsHeld, string Delivery, string? Report = null)
{
    /// <summary>Whether the engine that takes a guest in has a process of its own.</summary>
    public bool HasSeparateEngine { get; init; }

    /// <summary>Where the engines come to that a supervisor starts, an absolute path; null if this process starts them.</summary>
    public string? EngineSocket { get; init; }

    /// <summary>How long a source that was lost after the switchover is waited for.</summary>
    public TimeSpan ReconnectFor { get; init; } = Timeout.InfiniteTimeSpan;

    /// <summary>How long a connection may be silent after the switchover.</summary>
    public TimeSpan LinkTimeout { get; init; } = MigrationOptions.DefaultLinkTimeout;

    /// <summary>How long a userfault of an arriving guest may wait before it is reported.</summary>
    public TimeSpan StallWarning { get; init; } = TimeSpan.FromSeconds(1);
}
