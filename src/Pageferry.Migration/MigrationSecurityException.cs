namespace Pageferry.Migration;

/// <summary>A certificate, key or authority can't be used. The message says what was tried, on what, and what to do.</summary>
public sealed class MigrationSecurityException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">What was tried, on what, why it failed, what to do.</param>
    /// <param name="inner">The cause; null for none.</param>
    public MigrationSecurityException(string message, Exception? inner = null)
        : base(message, inner)
    {
    }
}
