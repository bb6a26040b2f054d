namespace Pageferry.Cli;

/// <summary>What <c>--json</c> writes when a command could not do its work.</summary>
/// <param name="Ok">Always false.</param>
/// <param name="Error">What was tried, why it failed and what to do.</param>
internal sealed record FailureReport(bool Ok, string Error);
