using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The source's end of the demand connection: sends what the guest waits for, before all else, and again what arrived damaged.</summary>
internal sealed class DemandServer(PeerConnection connection, OutgoingPages pages, MigrationCounters counters)
{
    /// <summary>The most pages one request asks for.</summary>
    internal const int MostRequested = 512;

    private readonly byte[] _request = new byte[MostRequested * sizeof(ulong)];
    private readonly byte[] _frame = new byte[PageBatch.PrologueBytes + Page.Size];
    private volatile uint _generation;

    private bool HasSwitchedOver => _generation != 0;

    /// <summary>From now on the guest runs at the destination, which may ask for pages.</summary>
    /// <param name="generation">The switchover's generation.</param>
    internal void SwitchOver(uint generation) => _generation = generation;

    /// <summary>Answers until the destination ends the connection.</summary>
    internal void Serve()
    {
        DemandThread.Begin();
        while (true)
        {
            (MessageType type, int bytes) = connection.ReceiveHeader();
            bool isRequest = type == MessageType.PageRequest && HasSwitchedOver;
            if (!(isRequest || type == MessageType.Resend) || bytes == 0 || bytes > _request.Length || bytes % sizeof(ulong) != 0)
            {
                throw new ProtocolException($"The destination sent a frame {type} of {bytes} bytes on the demand connection{(HasSwitchedOver ? string.Empty : " before the switchover")}.");
            }

            connection.ReceivePayload(type, _request.AsSpan(0, bytes));
            pages.DemandInHand = HasSwitchedOver;
            try
            {
                for (int at = 0; at < bytes; at += sizeof(ulong))
                {
                    Answer(type, CheckedPage(BinaryPrimitives.ReadUInt64LittleEndian(_request.AsSpan(at))));
                }
            }
            finally
            {
                // Also when this connection fails: the background is to meet the end of its own, not to hold back for ever.
                pages.DemandInHand = false;
            }
        }
    }

    private ulong CheckedPage(ulong page) => page < pages.Memory.PageCount
        ? page
        : throw new ProtocolException($"The destination asked for page {page} of a memory of {pages.Memory.PageCount} pages.");

    private void Answer(MessageType type, ulong page)
    {
        if (type == MessageType.Resend)
        {
            counters.AddDamaged();
            if (!HasSwitchedOver)
            {
                // The guest runs here: the page goes with the next round, unless the switchover came meanwhile and nobody looks for it any more.
                _ = pages.Damaged.Add(page);
                _ = pages.Pending.Add(page);
                if (!HasSwitchedOver)
                {
                    return;
                }
            }

            _ = pages.Pending.Take(page);
            Send(page);
            return;
        }

        pages.FollowDemand(page);

        // A page that is taken already is on its way in the background.
        if (pages.Pending.Take(page))
        {
            Send(page);
        }
    }

    private void Send(ulong page)
    {
        Span<byte> content = _frame.AsSpan(PageBatch.PrologueBytes);
        pages.Memory.ReadPages(page, content);
        bool isZero = !content.ContainsAnyExcept((byte)0);
        int bytes = isZero ? 0 : Page.Size;
        var batch = new PageBatch(page, isZero ? 0UL : 1, isZero ? 1UL : 0, 0, _generation, PageEncoding.None, bytes, PageBatch.DigestOf(content[..bytes]));
        batch.Write(_frame, bytes);
        connection.SendFrame(_frame.AsSpan(0, PageBatch.PrologueBytes + bytes));
        counters.AddDemand(batch, bytes);
    }
}
