namespace Pageferry.Cli;

/// <summary>The other side of a move parted, or said what makes no sense.</summary>
/// <param name="message">What it said, or what was expected.</param>
internal sealed class MoveException(string message) : IOException(message)
{
    /// <summary>Whether these are the other side's own words: it has given the move up, and will not come back to it.</summary>
    internal bool IsParting { get; init; }
}
