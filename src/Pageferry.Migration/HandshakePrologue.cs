using System.Buffers.Binary;

namespace Pageferry.Migration;

/// <summary>What a hello and a welcome begin with: who speaks, and which versions.</summary>
internal static class HandshakePrologue
{
    /// <summary>Magic (8 bytes), lowest and highest version (2 each).</summary>
    internal const int Bytes = 12;

    /// <summary>"PAGEFERY" in memory.</summary>
    private const ulong Magic = 0x5952_4546_4547_4150;

    /// <summary>What came is none of this protocol's first messages.</summary>
    internal static ProtocolException NotSpoken() => new("The peer does not speak Pageferry's protocol.");

    internal static void Write(Span<byte> message, VersionRange versions)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(message, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(message[8..], versions.Lowest);
        BinaryPrimitives.WriteUInt16LittleEndian(message[10..], versions.Highest);
    }

    /// <exception cref="ProtocolException">The peer is no Pageferry, or states versions that make no sense.</exception>
    internal static VersionRange Read(ReadOnlySpan<byte> message, int bytes)
    {
        if (message.Length != bytes || BinaryPrimitives.ReadUInt64LittleEndian(message) != Magic)
        {
            throw NotSpoken();
        }

        var versions = new VersionRange(BinaryPrimitives.ReadUInt16LittleEndian(message[8..]), BinaryPrimitives.ReadUInt16LittleEndian(message[10..]));
        return versions.Lowest <= versions.Highest ? versions : throw new ProtocolException($"The peer states the version range {versions}, which is empty.");
    }
}
