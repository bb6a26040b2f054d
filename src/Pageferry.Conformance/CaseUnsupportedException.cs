namespace Pageferry.Conformance;

/// <summary>The case can't be run here.</summary>
internal sealed class CaseUnsupportedException(string message) : Exception(message);
