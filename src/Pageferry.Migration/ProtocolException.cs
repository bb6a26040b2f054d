namespace Pageferry.Migration;

/// <summary>A peer sent what the protocol does not allow, or parted with a reason.</summary>
public sealed class ProtocolException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">What came and what is allowed.</param>
    public ProtocolException(string message)
        : base(message)
    {
    }

    /// <summary>Whether the peer said itself that it parts (<see cref="MessageType.Error"/>).</summary>
    internal bool IsParting { get; init; }
}
