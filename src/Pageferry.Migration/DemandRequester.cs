using System.Buffers.Binary;
using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Asks the source for the pages that the guest waits for: the fault engine's page source. Allocates nothing per request.</summary>
internal sealed class DemandRequester(PeerConnection connection, Action<Exception> lost) : IPageSource
{
    /// <summary>One request at a time: vCPUs ask on their own threads where faults are delivered as exits.</summary>
    private readonly Lock _sending = new();
    private readonly byte[] _frame = new byte[PeerConnection.HeaderBytes + (DemandServer.MostRequested * sizeof(ulong))];

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        lock (_sending)
        {
            Send(MessageType.PageRequest, pages);
        }
    }

    /// <summary>Asks again for pages that arrived damaged.</summary>
    /// <param name="first">The page that bit 0 stands for.</param>
    /// <param name="damaged">The pages.</param>
    internal void Resend(ulong first, ulong damaged)
    {
        Span<ulong> pages = stackalloc ulong[PageBatch.MostPages];
        int count = 0;
        for (; damaged != 0; damaged &= damaged - 1)
        {
            pages[count++] = first + (ulong)BitOperations.TrailingZeroCount(damaged);
        }

        lock (_sending)
        {
            Send(MessageType.Resend, pages[..count]);
        }
    }

    private void Send(MessageType type, ReadOnlySpan<ulong> pages)
    {
        while (!pages.IsEmpty)
        {
            int count = Math.Min(pages.Length, DemandServer.MostRequested);
            int bytes = count * sizeof(ulong);
            PeerConnection.WriteHeader(_frame, type, bytes);
            for (int i = 0; i < count; i++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(_frame.AsSpan(PeerConnection.HeaderBytes + (i * sizeof(ulong))), pages[i]);
            }

            try
            {
                connection.SendAll(_frame.AsSpan(0, PeerConnection.HeaderBytes + bytes));
            }
            catch (Exception failure) when (failure is System.Net.Sockets.SocketException or ObjectDisposedException)
            {
                // The guest stalls on these pages; the engine goes on answering what is here.
                lost(failure);
                return;
            }

            pages = pages[count..];
        }
    }
}
