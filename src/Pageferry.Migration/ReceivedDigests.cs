using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The digest of each page as it arrived last.</summary>
internal sealed class ReceivedDigests
{
    private static readonly ulong s_zero = PageValidation.DigestOf(new byte[Page.Size]);

    private readonly ulong _pageCount;
    private readonly ulong[]? _own;
    private readonly NativeBuffer? _buffer;
    private readonly int _offset;

    /// <summary>Makes them, all 0.</summary>
    internal ReceivedDigests(ulong pageCount)
    {
        _pageCount = pageCount;
        _own = new ulong[pageCount];
    }

    /// <summary>Takes those that are in a buffer.</summary>
    internal ReceivedDigests(ulong pageCount, NativeBuffer buffer, int offset)
    {
        _pageCount = pageCount;
        _buffer = buffer;
        _offset = offset;
    }

    private Span<ulong> Digests => _buffer is null ? _own : MemoryMarshal.Cast<byte, ulong>(_buffer.Span(_offset, checked((int)_pageCount * sizeof(ulong))));

    /// <summary>A page arrived.</summary>
    internal void Set(ulong page, ReadOnlySpan<byte> content) => Volatile.Write(ref Digests[(int)page], PageValidation.DigestOf(content));

    /// <summary>Pages arrived as zero.</summary>
    internal void SetZero(ulong page, ulong count) => Digests.Slice(checked((int)page), checked((int)count)).Fill(s_zero);

    /// <summary>Sends all of them.</summary>
    internal void Send(Action<MessageType, ReadOnlyMemory<byte>> send)
    {
        var message = new byte[PageValidation.MostBytes];
        for (ulong first = 0; first < _pageCount; first += PageValidation.MostDigests)
        {
            int count = (int)Math.Min(PageValidation.MostDigests, _pageCount - first);
            BinaryPrimitives.WriteUInt64LittleEndian(message, first);
            for (int i = 0; i < count; i++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(message.AsSpan((i + 1) * sizeof(ulong)), Digests[(int)first + i]);
            }

            send(MessageType.Digests, message.AsMemory(0, (count + 1) * sizeof(ulong)));
        }
    }
}
