namespace Pageferry.Cli;

/// <summary>Ends a run with something that must not be.</summary>
/// <param name="outcome">What it is.</param>
/// <param name="message">How it shows.</param>
internal sealed class TortureFinding(TortureOutcome outcome, string message) : Exception(message)
{
    /// <summary>What it is.</summary>
    internal TortureOutcome Outcome { get; } = outcome;
}
