namespace Pageferry.Cli;

/// <summary>A holder did not do what it was asked.</summary>
/// <param name="answer">What it answered; null if it did not, and may or may not have done it.</param>
/// <param name="message">What was asked, why it was not done, what to do.</param>
/// <param name="inner">Why it did not answer.</param>
internal sealed class HolderException(HoldAnswer? answer, string message, Exception? inner = null) : IOException(message, inner)
{
    /// <summary>What it answered; null if it did not, and may or may not have done it.</summary>
    internal HoldAnswer? Answer { get; } = answer;
}
