namespace Pageferry.Cli;

/// <summary>An image on its way.</summary>
/// <param name="Name">Its file's name, without a directory.</param>
/// <param name="Length">Its bytes.</param>
internal sealed record MoveImage(string Name, long Length);
