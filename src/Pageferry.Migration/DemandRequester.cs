using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Asks the source for the pages that the guest waits for: the fault engine's page source. Allocates nothing per request.</summary>
internal sealed class DemandRequester(PeerConnection connection, Action<Exception> lost) : IPageSource
{
    /// <summary>One request at a time: vCPUs ask on their own threads where faults are delivered as exits.</summary>
    private readonly Lock _sending = new();
    private readonly byte[] _frame = new byte[PeerConnection.HeaderBytes + (PageFrames.MostRequested * sizeof(ulong))];

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        lock (_sending)
        {
            Send(pages);
        }
    }

    private void Send(ReadOnlySpan<ulong> pages)
    {
        while (!pages.IsEmpty)
        {
            int count = Math.Min(pages.Length, PageFrames.MostRequested);
            int bytes = count * sizeof(ulong);
            PeerConnection.WriteHeader(_frame, MessageType.PageRequest, bytes);
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
