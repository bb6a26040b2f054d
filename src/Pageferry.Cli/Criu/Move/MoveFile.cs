namespace Pageferry.Cli;

/// <summary>A file that a process has open or mapped.</summary>
/// <param name="Path">Its path.</param>
/// <param name="Length">The bytes of one that is mapped, such as a program; null for one that is only open, such as a log, which may grow at any time.</param>
internal sealed record MoveFile(string Path, long? Length);
