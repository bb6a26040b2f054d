using System.Buffers.Binary;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Fuzz;

/// <summary>Makes the checks of frames right again that a mutation made wrong: behind them is what is to be reached.</summary>
internal static class PageFrames
{
    private const int CheckBytes = sizeof(uint);
    private const int DigestBytes = sizeof(ulong);

    /// <summary>What a frame says before its payload, with its check.</summary>
    internal static byte[] WithCheck(ReadOnlySpan<byte> said, int bytes)
    {
        byte[] copy = said[..bytes].ToArray();
        Span<byte> check = copy.AsSpan(bytes - CheckBytes);
        BinaryPrimitives.WriteUInt32LittleEndian(check, FrameCheck.Of(copy.AsSpan(0, bytes - CheckBytes)));
        return copy;
    }

    /// <summary>Makes right what can be made right of a stream of frames.</summary>
    internal static void Repair(Span<byte> stream)
    {
        while (stream.Length >= PeerConnection.HeaderBytes)
        {
            var type = (MessageType)BinaryPrimitives.ReadUInt16LittleEndian(stream);
            uint bytes = BinaryPrimitives.ReadUInt32LittleEndian(stream[4..]);
            stream = stream[PeerConnection.HeaderBytes..];
            if (bytes > stream.Length)
            {
                return;
            }

            Span<byte> payload = stream[..(int)bytes];
            if (type == MessageType.ZeroPages && payload.Length == ZeroRun.Bytes)
            {
                WithCheck(payload, ZeroRun.Bytes).CopyTo(payload);
            }
            else if (type == MessageType.Pages && payload.Length >= PageBatch.Bytes)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(payload[(PageBatch.Bytes - CheckBytes - DigestBytes)..], PageBatch.DigestOf(payload[PageBatch.Bytes..]));
                WithCheck(payload, PageBatch.Bytes).CopyTo(payload);
            }
            else if (type >= MessageType.Layout && payload.Length > PeerConnection.CheckBytes)
            {
                PeerConnection.WriteCheck(payload[^PeerConnection.CheckBytes..], payload[..^PeerConnection.CheckBytes]);
            }

            stream = stream[(int)bytes..];
        }
    }
}
