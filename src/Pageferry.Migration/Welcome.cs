using System.Buffers.Binary;

namespace Pageferry.Migration;

/// <summary>The destination's answer to a <see cref="Hello"/>: the connection is taken.</summary>
/// <param name="Versions">The protocol versions that the destination speaks.</param>
/// <param name="Version">The one that it chose.</param>
/// <param name="Session">The session that the connection belongs to.</param>
internal readonly record struct Welcome(VersionRange Versions, ushort Version, SessionId Session)
{
    /// <summary>Its payload's size.</summary>
    internal const int Bytes = 32;

    /// <summary>Writes the payload.</summary>
    /// <param name="payload">32 bytes.</param>
    internal void Write(Span<byte> payload)
    {
        payload.Clear();
        HandshakePrologue.Write(payload, Versions);
        BinaryPrimitives.WriteUInt16LittleEndian(payload[12..], Version);
        Session.Write(payload[16..]);
    }

    /// <summary>Reads a payload.</summary>
    /// <param name="payload">The payload.</param>
    /// <param name="spoken">The versions that this side speaks.</param>
    /// <returns>The welcome.</returns>
    /// <exception cref="ProtocolException">It is no welcome, or the version chosen is not the one that both agree on.</exception>
    internal static Welcome Read(ReadOnlySpan<byte> payload, VersionRange spoken)
    {
        VersionRange versions = HandshakePrologue.Read(payload, Bytes);
        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(payload[12..]);
        return spoken.Agree(versions) == version && BinaryPrimitives.ReadUInt16LittleEndian(payload[14..]) == 0
            ? new Welcome(versions, version, SessionId.Read(payload[16..]))
            : throw new ProtocolException($"The destination speaks protocol version {versions} and chose {version}; this source speaks {spoken}.");
    }
}
