namespace Pageferry.Cli;

/// <summary>How an engine in a process of its own takes a guest in.</summary>
/// <param name="Security">Who this side is and whom it trusts; the engine reads the files.</param>
/// <param name="ReconnectForMs">How long a source that was lost after the switchover is waited for, in milliseconds; null for as long as it takes.</param>
/// <param name="LinkTimeoutMs">How long a connection may be silent after the switchover, in milliseconds.</param>
/// <param name="StallWarningMs">How long a userfault may wait before it is reported, in milliseconds.</param>
/// <param name="IsReported">Whether what happens is kept for a report.</param>
internal sealed record EngineSettings(SecuritySettings Security, double? ReconnectForMs, double LinkTimeoutMs, double StallWarningMs, bool IsReported);
