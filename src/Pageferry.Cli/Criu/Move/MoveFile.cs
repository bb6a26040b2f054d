namespace Pageferry.Cli;

/// <summary>A file that a process has open or mapped.</summary>
/// <param name="Path">Its path.</param>
/// <param name="Length">Its bytes.</param>
internal sealed record MoveFile(string Path, long Length);
