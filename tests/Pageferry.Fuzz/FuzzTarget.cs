namespace Pageferry.Fuzz;

/// <summary>A reader of bytes that come from somebody else.</summary>
/// <param name="Name">What it is called on the command line, and its folder of the corpus.</param>
/// <param name="Read">Reads; it throws what is documented for bytes that make no sense, and what it takes holds together.</param>
/// <param name="Refusals">What it may throw.</param>
internal sealed record FuzzTarget(string Name, Action<byte[]> Read, params Type[] Refusals)
{
    /// <summary>Has it read.</summary>
    /// <returns>Whether it took the bytes.</returns>
    internal bool Takes(byte[] input)
    {
        try
        {
            Read(input);
            return true;
        }
        catch (Exception refusal) when (Array.Exists(Refusals, type => type.IsInstanceOfType(refusal)))
        {
            return false;
        }
    }
}
