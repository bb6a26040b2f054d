namespace Pageferry.Migration;

/// <summary>Pages did not arrive as they are at the source: no other link changes that.</summary>
internal sealed class ValidationException(string message) : IOException(message);
