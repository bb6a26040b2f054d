using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Compares the digests of pages as they arrived with the source's memory, which has not changed since the guest stopped.</summary>
internal sealed class PageValidation(GuestMemory memory)
{
    /// <summary>Says that nothing arrived of a page: the guest removed it before.</summary>
    internal const ulong Nothing = 0;

    /// <summary>The most digests of one message.</summary>
    internal const int MostDigests = 8192;

    /// <summary>First page (8 bytes), then a digest of 8 bytes for each page.</summary>
    internal const int MostBytes = sizeof(ulong) * (1 + MostDigests);

    /// <summary>Wrong pages named in a message.</summary>
    private const int MostNamed = 8;

    private const int PagesPerRead = 64;

    private readonly byte[] _content = new byte[PagesPerRead * Page.Size];

    /// <summary>Receives the digests of all pages, and compares.</summary>
    /// <exception cref="ProtocolException">Digests are missing.</exception>
    /// <exception cref="ValidationException">Pages differ.</exception>
    internal void Compare(PeerConnection control)
    {
        var wrong = new List<ulong>();
        long count = 0;
        for (ulong next = 0; next < memory.PageCount;)
        {
            byte[] message = control.Receive(MessageType.Digests, MostBytes);
            int digests = (message.Length / sizeof(ulong)) - 1;
            if (message.Length % sizeof(ulong) != 0 || digests < 1 || (ulong)digests > memory.PageCount - next || BinaryPrimitives.ReadUInt64LittleEndian(message) != next)
            {
                throw new ProtocolException($"The destination sent {message.Length} bytes of digests where those from page {next} on are due.");
            }

            for (int i = 0; i < digests; i++, next++)
            {
                int inRead = i % PagesPerRead;
                if (inRead == 0)
                {
                    memory.ReadPages(next, _content.AsSpan(0, Math.Min(PagesPerRead, digests - i) * Page.Size));
                }

                ulong digest = BinaryPrimitives.ReadUInt64LittleEndian(message.AsSpan((1 + i) * sizeof(ulong)));
                if (digest != Nothing && digest != DigestOf(_content.AsSpan(inRead * Page.Size, Page.Size)))
                {
                    count++;
                    if (wrong.Count < MostNamed)
                    {
                        wrong.Add(next);
                    }
                }
            }
        }

        if (count > 0)
        {
            throw new ValidationException(
                $"Validation found {count} of {memory.PageCount} pages that did not arrive as they are at the source: {string.Join(", ", wrong)}{(count > wrong.Count ? " and more" : string.Empty)}.");
        }
    }

    /// <summary>A page's digest, which is never <see cref="Nothing"/>.</summary>
    internal static ulong DigestOf(ReadOnlySpan<byte> page) => Math.Max(1, PageBatch.DigestOf(page));
}
