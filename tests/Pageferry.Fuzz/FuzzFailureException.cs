namespace Pageferry.Fuzz;

/// <summary>A message broke its reader.</summary>
internal sealed class FuzzFailureException(string target, byte[] message, Exception cause)
    : Exception($"{target} failed on {message.Length} bytes: {cause.Message} They are {Convert.ToHexString(message.AsSpan(0, Math.Min(message.Length, 4096)))}.", cause)
{
    /// <summary>The message.</summary>
    internal byte[] Bytes => message;
}
