using System.IO.Hashing;

namespace Pageferry.Migration;

/// <summary>The check of what a frame says about its pages: a frame that names wrong pages can't be asked for again, and ends the session.</summary>
internal static class FrameCheck
{
    /// <summary>The lower 32 bits of the XXH3 digest.</summary>
    internal static uint Of(ReadOnlySpan<byte> said) => (uint)XxHash3.HashToUInt64(said);

    /// <exception cref="ProtocolException">The check is another.</exception>
    internal static void Hold(ReadOnlySpan<byte> said, uint check, MessageType type)
    {
        if (Of(said) != check)
        {
            throw new ProtocolException($"A {type} frame was damaged on its way: its check is 0x{Of(said):x8}, not 0x{check:x8}.");
        }
    }
}
