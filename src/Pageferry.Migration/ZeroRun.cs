using System.Buffers.Binary;

namespace Pageferry.Migration;

/// <summary>The payload of a frame of zero pages: a run of any length.</summary>
/// <param name="First">The first page.</param>
/// <param name="Count">How many pages; at least 1.</param>
/// <param name="Generation">The round of pre-copy that it belongs to, or the switchover's.</param>
internal readonly record struct ZeroRun(ulong First, ulong Count, uint Generation)
{
    /// <summary>Its size.</summary>
    internal const int Bytes = 24;

    /// <summary>The frame's size.</summary>
    internal const int FrameBytes = PeerConnection.HeaderBytes + Bytes;

    private const int CheckAt = 20;

    /// <summary>Writes the whole frame.</summary>
    /// <param name="frame"><see cref="FrameBytes"/> bytes.</param>
    internal void Write(Span<byte> frame)
    {
        PeerConnection.WriteHeader(frame, MessageType.ZeroPages, Bytes);
        Span<byte> to = frame[PeerConnection.HeaderBytes..];
        BinaryPrimitives.WriteUInt64LittleEndian(to, First);
        BinaryPrimitives.WriteUInt64LittleEndian(to[8..], Count);
        BinaryPrimitives.WriteUInt32LittleEndian(to[16..], Generation);
        BinaryPrimitives.WriteUInt32LittleEndian(to[CheckAt..], FrameCheck.Of(to[..CheckAt]));
    }

    /// <summary>Reads and checks a payload.</summary>
    /// <param name="from"><see cref="Bytes"/> bytes.</param>
    /// <param name="pageCount">How many pages the memory has.</param>
    /// <exception cref="ProtocolException">It is damaged, empty, or not within the memory.</exception>
    internal static ZeroRun Read(ReadOnlySpan<byte> from, ulong pageCount)
    {
        FrameCheck.Hold(from[..CheckAt], BinaryPrimitives.ReadUInt32LittleEndian(from[CheckAt..]), MessageType.ZeroPages);
        var run = new ZeroRun(
            BinaryPrimitives.ReadUInt64LittleEndian(from),
            BinaryPrimitives.ReadUInt64LittleEndian(from[8..]),
            BinaryPrimitives.ReadUInt32LittleEndian(from[16..]));
        return run.Count > 0 && run.First < pageCount && run.Count <= pageCount - run.First
            ? run
            : throw new ProtocolException($"The source sent the news of {run.Count} zero pages from {run.First} of a memory of {pageCount} pages.");
    }
}
