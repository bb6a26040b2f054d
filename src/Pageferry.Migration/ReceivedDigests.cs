using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The digest of each page as it arrived last.</summary>
internal sealed class ReceivedDigests(ulong pageCount)
{
    private static readonly ulong s_zero = PageValidation.DigestOf(new byte[Page.Size]);

    private readonly ulong[] _digests = new ulong[pageCount];

    /// <summary>A page arrived.</summary>
    internal void Set(ulong page, ReadOnlySpan<byte> content) => Volatile.Write(ref _digests[page], PageValidation.DigestOf(content));

    /// <summary>Pages arrived as zero.</summary>
    internal void SetZero(ulong page, ulong count) => Array.Fill(_digests, s_zero, checked((int)page), checked((int)count));

    /// <summary>Sends all of them.</summary>
    internal void Send(Action<MessageType, ReadOnlyMemory<byte>> send)
    {
        var message = new byte[PageValidation.MostBytes];
        for (ulong first = 0; first < pageCount; first += PageValidation.MostDigests)
        {
            int count = (int)Math.Min(PageValidation.MostDigests, pageCount - first);
            BinaryPrimitives.WriteUInt64LittleEndian(message, first);
            for (int i = 0; i < count; i++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(message.AsSpan((i + 1) * sizeof(ulong)), _digests[first + (ulong)i]);
            }

            send(MessageType.Digests, message.AsMemory(0, (count + 1) * sizeof(ulong)));
        }
    }
}
