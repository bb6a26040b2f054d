namespace Pageferry.Cli;

/// <summary>One case of a <see cref="ConformanceReport"/>.</summary>
/// <param name="Group">The letter of its group.</param>
/// <param name="Name">The case's name.</param>
/// <param name="Backing">The memory it was run on: <c>anonymous</c>, <c>memfd</c> or <c>memfd-2m</c>.</param>
/// <param name="Outcome"><c>pass</c>, <c>fail</c> or <c>unsupported</c>.</param>
/// <param name="Detail">Expected and found, or the kernel's answer; null for a pass.</param>
/// <param name="Rule">The rule in one line.</param>
/// <param name="Source">Where the rule comes from.</param>
/// <param name="Ms">How long it took, in milliseconds.</param>
internal sealed record ConformanceEntry(char Group, string Name, string Backing, string Outcome, string? Detail, string Rule, string Source, double Ms);
