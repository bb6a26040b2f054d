namespace Pageferry.Criu.Tests;

/// <summary>Tests that measure what the whole process does: no other test runs meanwhile.</summary>
[CollectionDefinition(nameof(Undisturbed), DisableParallelization = true)]
public sealed class Undisturbed;
