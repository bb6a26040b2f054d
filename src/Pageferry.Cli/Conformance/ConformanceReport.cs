namespace Pageferry.Cli;

/// <summary>What <c>conformance --json</c> writes. docs/cli.md explains each field.</summary>
/// <param name="Ok">Whether nothing failed.</param>
/// <param name="Kernel">The kernel's release.</param>
/// <param name="Passed">Cases that passed.</param>
/// <param name="Failed">Cases that failed.</param>
/// <param name="Unsupported">Cases that this kernel or machine can't run.</param>
/// <param name="Cases">Each case on each memory.</param>
internal sealed record ConformanceReport(bool Ok, string Kernel, int Passed, int Failed, int Unsupported, IReadOnlyList<ConformanceEntry> Cases);
