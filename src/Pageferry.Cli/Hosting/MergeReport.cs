namespace Pageferry.Cli;

/// <summary>What <c>recover merge --json</c> writes.</summary>
/// <param name="Ok">Always true.</param>
/// <param name="Path">Where the guest is.</param>
/// <param name="FromDestination">Pages that are the destination's.</param>
/// <param name="FromSource">Pages that are the source's.</param>
internal sealed record MergeReport(bool Ok, string Path, ulong FromDestination, ulong FromSource);
