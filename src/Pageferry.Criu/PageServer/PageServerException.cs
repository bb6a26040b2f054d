namespace Pageferry.Criu;

/// <summary>A peer of the page-server protocol said what makes no sense, or went before it was done.</summary>
public sealed class PageServerException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">What the peer did and what was expected.</param>
    /// <param name="cause">What it came from; null for none.</param>
    public PageServerException(string message, Exception? cause = null)
        : base(message, cause)
    {
    }
}
