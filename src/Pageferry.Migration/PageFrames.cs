using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The frames that pages travel in.</summary>
internal static class PageFrames
{
    /// <summary>The most pages one frame of content carries: 1 MiB.</summary>
    internal const int MostPages = 256;

    /// <summary>The most pages one request asks for.</summary>
    internal const int MostRequested = 512;

    /// <summary>First page (8 bytes), number of pages (8).</summary>
    internal const int RunBytes = 16;

    /// <summary>A frame's header and the run it carries, before any content.</summary>
    internal const int PrologueBytes = PeerConnection.HeaderBytes + RunBytes;

    /// <summary>Writes the beginning of a frame of pages; their content follows.</summary>
    internal static void WritePages(Span<byte> prologue, ulong page, int count)
    {
        PeerConnection.WriteHeader(prologue, MessageType.Pages, RunBytes + (count * Page.Size));
        BinaryPrimitives.WriteUInt64LittleEndian(prologue[PeerConnection.HeaderBytes..], page);
        BinaryPrimitives.WriteUInt64LittleEndian(prologue[(PeerConnection.HeaderBytes + 8)..], (ulong)count);
    }

    /// <summary>Writes a whole frame of zero pages.</summary>
    internal static void WriteZeroPages(Span<byte> frame, ulong page, ulong count)
    {
        PeerConnection.WriteHeader(frame, MessageType.ZeroPages, RunBytes);
        BinaryPrimitives.WriteUInt64LittleEndian(frame[PeerConnection.HeaderBytes..], page);
        BinaryPrimitives.WriteUInt64LittleEndian(frame[(PeerConnection.HeaderBytes + 8)..], count);
    }

    /// <summary>Reads a run and checks it against the memory and the frame that it came in.</summary>
    /// <exception cref="ProtocolException">The run is empty, beyond the memory, too long, or not as long as its frame.</exception>
    internal static (ulong Page, ulong Count) ReadRun(MessageType type, ReadOnlySpan<byte> run, int frameBytes, ulong pageCount)
    {
        ulong page = BinaryPrimitives.ReadUInt64LittleEndian(run);
        ulong count = BinaryPrimitives.ReadUInt64LittleEndian(run[8..]);
        bool fits = count > 0 && page < pageCount && count <= pageCount - page;
        bool framed = type == MessageType.Pages
            ? count <= MostPages && frameBytes == RunBytes + ((int)count * Page.Size)
            : frameBytes == RunBytes;
        return fits && framed
            ? (page, count)
            : throw new ProtocolException($"The peer sent a {type} frame of {frameBytes} bytes for {count} pages from {page} of a memory of {pageCount} pages.");
    }
}
