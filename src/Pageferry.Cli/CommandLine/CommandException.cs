namespace Pageferry.Cli;

/// <summary>The command can't go on. The message is for the user: what was tried, on what, why it failed, what to do.</summary>
/// <param name="message">The whole message.</param>
/// <param name="exitCode">The process's exit status, one of <see cref="ExitCode"/>.</param>
internal sealed class CommandException(string message, int exitCode = ExitCode.Failure) : Exception(message)
{
    /// <summary>The process's exit status.</summary>
    internal int ExitCode { get; } = exitCode;
}
