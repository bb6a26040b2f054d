namespace Pageferry.Conformance;

/// <summary>A case that was run.</summary>
/// <param name="Case">The case.</param>
/// <param name="Memory">What it was run on.</param>
/// <param name="Outcome">What came of it.</param>
/// <param name="Detail">Expected and found, or the kernel's answer; null for a pass.</param>
/// <param name="Took">How long it took.</param>
public sealed record CaseResult(ConformanceCase Case, MemoryKind Memory, CaseOutcome Outcome, string? Detail, TimeSpan Took);
