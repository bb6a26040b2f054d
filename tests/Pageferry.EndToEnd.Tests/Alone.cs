namespace Pageferry.EndToEnd.Tests;

/// <summary>Tests that keep both CPUs busy for long: they run one after another, when the others have ended, so that none waits for a deadline of another's.</summary>
[CollectionDefinition(nameof(Alone), DisableParallelization = true)]
public sealed class Alone;
