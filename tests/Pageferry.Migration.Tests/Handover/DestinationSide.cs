namespace Pageferry.Migration.Tests;

/// <summary>The destination in a <see cref="HandoverWorld"/>; of the session if the source that there is can come back to it.</summary>
internal readonly record struct DestinationSide(
    DestinationStage Stage, DestinationWork Work, bool IsAlive, bool Runs, bool HasLink, bool HasExecuted, bool HasPages, bool HasCrashed, bool IsOfSession);
