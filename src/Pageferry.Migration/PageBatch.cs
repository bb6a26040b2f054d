using System.Buffers.Binary;
using System.IO.Hashing;
using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What a frame of pages says about its payload: which of up to 64 neighbouring pages it carries, and how.</summary>
/// <param name="First">The page that bit 0 of the masks stands for.</param>
/// <param name="Content">Pages whose content is in the payload, in ascending order.</param>
/// <param name="Zeros">Pages whose every byte is 0.</param>
/// <param name="Deltas">Those of <paramref name="Content"/> that are told as what changed since they were sent last.</param>
/// <param name="Generation">The round of pre-copy that it belongs to, or the switchover's.</param>
/// <param name="Encoding">How the payload is compressed.</param>
/// <param name="UnpackedBytes">The payload's size before compression.</param>
/// <param name="Digest">XXH3, 64 bits, of the content of all pages of <paramref name="Content"/>, deltas applied; of nothing, if there are none.</param>
internal readonly record struct PageBatch(
    ulong First, ulong Content, ulong Zeros, ulong Deltas, uint Generation, PageEncoding Encoding, int UnpackedBytes, ulong Digest)
{
    /// <summary>The most pages that a batch tells of.</summary>
    internal const int MostPages = 64;

    /// <summary>The size of what is said before the payload.</summary>
    internal const int Bytes = 56;

    /// <summary>The size of the frame's header and of what is said.</summary>
    internal const int PrologueBytes = PeerConnection.HeaderBytes + Bytes;

    /// <summary>The most bytes of a payload, before compression and after: pages as they are, or deltas, each with its length.</summary>
    internal const int MostPayloadBytes = MostPages * (Page.Size + DeltaCoding.LengthBytes);

    private const int CheckAt = 52;

    /// <summary>How many pages have content.</summary>
    internal int ContentPages => BitOperations.PopCount(Content);

    /// <summary>Writes the frame's beginning.</summary>
    /// <param name="frame">At least <see cref="PrologueBytes"/>.</param>
    /// <param name="payloadBytes">The size of the payload that follows.</param>
    internal void Write(Span<byte> frame, int payloadBytes)
    {
        PeerConnection.WriteHeader(frame, MessageType.Pages, Bytes + payloadBytes);
        Span<byte> to = frame[PeerConnection.HeaderBytes..];
        BinaryPrimitives.WriteUInt64LittleEndian(to, First);
        BinaryPrimitives.WriteUInt64LittleEndian(to[8..], Content);
        BinaryPrimitives.WriteUInt64LittleEndian(to[16..], Zeros);
        BinaryPrimitives.WriteUInt64LittleEndian(to[24..], Deltas);
        BinaryPrimitives.WriteUInt32LittleEndian(to[32..], Generation);
        BinaryPrimitives.WriteUInt32LittleEndian(to[36..], (uint)Encoding);
        BinaryPrimitives.WriteInt32LittleEndian(to[40..], UnpackedBytes);
        BinaryPrimitives.WriteUInt64LittleEndian(to[44..], Digest);
        BinaryPrimitives.WriteUInt32LittleEndian(to[CheckAt..], FrameCheck.Of(to[..CheckAt]));
    }

    /// <summary>Reads and checks what is said.</summary>
    /// <param name="from"><see cref="Bytes"/> bytes.</param>
    /// <param name="payloadBytes">The size of the payload that follows.</param>
    /// <param name="pageCount">How many pages the memory has.</param>
    /// <exception cref="ProtocolException">It is damaged, or makes no sense.</exception>
    internal static PageBatch Read(ReadOnlySpan<byte> from, int payloadBytes, ulong pageCount)
    {
        FrameCheck.Hold(from[..CheckAt], BinaryPrimitives.ReadUInt32LittleEndian(from[CheckAt..]), MessageType.Pages);
        var batch = new PageBatch(
            BinaryPrimitives.ReadUInt64LittleEndian(from),
            BinaryPrimitives.ReadUInt64LittleEndian(from[8..]),
            BinaryPrimitives.ReadUInt64LittleEndian(from[16..]),
            BinaryPrimitives.ReadUInt64LittleEndian(from[24..]),
            BinaryPrimitives.ReadUInt32LittleEndian(from[32..]),
            (PageEncoding)from[36],
            BinaryPrimitives.ReadInt32LittleEndian(from[40..]),
            BinaryPrimitives.ReadUInt64LittleEndian(from[44..]));
        ulong told = batch.Content | batch.Zeros;
        bool fits = told != 0
            && (batch.Content & batch.Zeros) == 0
            && (batch.Deltas & ~batch.Content) == 0
            && batch.First < pageCount
            && (ulong)(64 - BitOperations.LeadingZeroCount(told)) <= pageCount - batch.First;
        int wholePages = BitOperations.PopCount(batch.Content & ~batch.Deltas);
        int deltas = BitOperations.PopCount(batch.Deltas);
        bool isSized = batch.UnpackedBytes >= (wholePages * Page.Size) + (deltas * DeltaCoding.LengthBytes)
            && batch.UnpackedBytes <= (wholePages * Page.Size) + (deltas * (DeltaCoding.LengthBytes + DeltaCoding.MostBytes))
            && (batch.Encoding == PageEncoding.None ? payloadBytes == batch.UnpackedBytes : payloadBytes > 0 && payloadBytes < batch.UnpackedBytes);
        bool isKnown = batch.Encoding <= PageEncoding.Zstd && from[37] == 0 && from[38] == 0 && from[39] == 0;
        return fits && isSized && isKnown
            ? batch
            : throw new ProtocolException(
                $"The source sent a batch at page {batch.First} of {pageCount} with content 0x{batch.Content:x}, zeros 0x{batch.Zeros:x} and deltas 0x{batch.Deltas:x}, "
                + $"encoding {from[36]}, in {payloadBytes} of {batch.UnpackedBytes} bytes: that makes no sense.");
    }

    /// <summary>The digest of content.</summary>
    internal static ulong DigestOf(ReadOnlySpan<byte> content) => XxHash3.HashToUInt64(content);

    /// <summary>Takes the lowest run of set bits out of a mask.</summary>
    internal static (int First, int Count) TakeRun(ref ulong bits)
    {
        int first = BitOperations.TrailingZeroCount(bits);
        int count = BitOperations.TrailingZeroCount(~(bits >> first));
        bits &= count == 64 ? 0 : ~(((1UL << count) - 1) << first);
        return (first, count);
    }
}
