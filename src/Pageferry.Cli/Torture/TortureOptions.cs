namespace Pageferry.Cli;

/// <summary>What the user asked of <c>torture</c>.</summary>
/// <param name="Seed">What all plans follow from.</param>
/// <param name="Count">Most runs; null for no limit.</param>
/// <param name="Minutes">Minutes after which no run is begun; null for no limit.</param>
/// <param name="Scenarios">What is done, in turns.</param>
/// <param name="Memory">The guests' memory.</param>
/// <param name="Mode"><see cref="AnyMode"/>, <c>auto</c>, <c>precopy</c> or <c>postcopy</c>.</param>
internal sealed record TortureOptions(int Seed, int? Count, int? Minutes, IReadOnlyList<TortureScenario> Scenarios, MemorySize Memory, string Mode)
{
    /// <summary>The seed chooses when memory goes.</summary>
    internal const string AnyMode = "any";
}
