using System.Buffers.Binary;

namespace Pageferry.Migration;

/// <summary>The first message of every connection, from the source: what the connection is for.</summary>
/// <param name="Versions">The protocol versions that the source speaks.</param>
/// <param name="Role">What the connection is for.</param>
/// <param name="Index">Of a background connection which one it is, from 0; of the control connection how many of them the source wants, 0 for 1.</param>
/// <param name="Session">The session that it belongs to; of the control connection none.</param>
internal readonly record struct Hello(VersionRange Versions, ConnectionRole Role, byte Index, SessionId Session)
{
    /// <summary>Its payload's size.</summary>
    internal const int Bytes = 32;

    /// <summary>The most background connections of a session.</summary>
    internal const int MostBackground = 16;

    /// <summary>How many background connections a control connection's hello asks for.</summary>
    internal int BackgroundWanted => Math.Max((int)Index, 1);

    /// <summary>Writes the payload.</summary>
    /// <param name="payload">32 bytes.</param>
    internal void Write(Span<byte> payload)
    {
        payload.Clear();
        HandshakePrologue.Write(payload, Versions);
        payload[12] = (byte)Role;
        payload[13] = Index;
        Session.Write(payload[16..]);
    }

    /// <summary>Reads a payload, and agrees on a version.</summary>
    /// <param name="payload">The payload.</param>
    /// <param name="spoken">The versions that this side speaks.</param>
    /// <param name="version">The version to speak.</param>
    /// <returns>The hello.</returns>
    /// <exception cref="ProtocolException">It is no hello, of no version that is spoken here, or makes no sense.</exception>
    internal static Hello Read(ReadOnlySpan<byte> payload, VersionRange spoken, out ushort version)
    {
        VersionRange versions = HandshakePrologue.Read(payload, Bytes);
        version = spoken.Agree(versions)
            ?? throw new ProtocolException($"The source speaks protocol version {versions}, this destination {spoken}: use builds that share one.");
        var hello = new Hello(versions, (ConnectionRole)payload[12], payload[13], SessionId.Read(payload[16..]));
        int indexes = hello.Role switch
        {
            ConnectionRole.Control => MostBackground + 1,
            ConnectionRole.Demand => 1,
            ConnectionRole.Background => MostBackground,
            _ => throw new ProtocolException($"The connection is for a role {payload[12]} that is unknown here."),
        };
        return hello.Index < indexes && BinaryPrimitives.ReadUInt16LittleEndian(payload[14..]) == 0
            ? hello
            : throw new ProtocolException($"The hello of a {hello.Role} connection has index {hello.Index} and {BinaryPrimitives.ReadUInt16LittleEndian(payload[14..])} behind it, which means nothing here.");
    }
}
