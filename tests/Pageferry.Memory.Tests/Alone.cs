namespace Pageferry.Memory.Tests;

/// <summary>Tests that take what others need too: they run when no other does.</summary>
[CollectionDefinition(nameof(Alone), DisableParallelization = true)]
public sealed class Alone;
