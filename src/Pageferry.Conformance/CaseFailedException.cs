namespace Pageferry.Conformance;

/// <summary>The kernel did not do what the rule says.</summary>
internal sealed class CaseFailedException(string message) : Exception(message);
