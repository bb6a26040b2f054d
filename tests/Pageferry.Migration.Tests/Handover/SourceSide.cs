namespace Pageferry.Migration.Tests;

/// <summary>The source in a <see cref="HandoverWorld"/>.</summary>
internal readonly record struct SourceSide(SourceStage Stage, SourceWork Work, bool IsAlive, bool Runs, bool HasLink, bool IsCancelled);
