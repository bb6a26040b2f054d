using System.Buffers.Binary;
using System.Net.Sockets;
using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// Asks the source for the pages that the guest waits for: the fault engine's page source. Allocates nothing per request. While there is no link nobody is asked;
/// the next one begins with all that is waited for.
/// </summary>
/// <param name="states">Tells what is waited for.</param>
/// <param name="connection">The first link's demand connection; null where the first is still waited for.</param>
/// <param name="lost">Hears when that fails.</param>
internal sealed class DemandRequester(PageStates states, PeerConnection? connection, Action<Exception> lost) : IPageSource
{
    /// <summary>One request at a time: vCPUs ask on their own threads where faults are delivered as exits.</summary>
    private readonly Lock _sending = new();
    private readonly byte[] _frame = new byte[PeerConnection.HeaderBytes + (DemandServer.MostRequested * sizeof(ulong)) + PeerConnection.CheckBytes];
    private PeerConnection? _connection = connection;
    private Action<Exception> _lost = lost;

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        lock (_sending)
        {
            Send(MessageType.PageRequest, pages);
        }
    }

    /// <summary>Asks on a link from now on, for what was waited for before too.</summary>
    /// <param name="next">Its demand connection.</param>
    /// <param name="failed">Hears when that fails.</param>
    internal void Attach(PeerConnection next, Action<Exception> failed)
    {
        lock (_sending)
        {
            (_connection, _lost) = (next, failed);
            RequestAgain();
        }
    }

    /// <summary>Asks nobody until there is another link.</summary>
    internal void Detach()
    {
        lock (_sending)
        {
            _connection = null;
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

    private void RequestAgain()
    {
        Span<ulong> waited = stackalloc ulong[DemandServer.MostRequested];
        int count = 0;
        for (ulong page = 0; page < states.PageCount; page++)
        {
            if (states[page] == PageState.Requested)
            {
                waited[count++] = page;
                if (count == waited.Length)
                {
                    Send(MessageType.PageRequest, waited);
                    count = 0;
                }
            }
        }

        Send(MessageType.PageRequest, waited[..count]);
    }

    private void Send(MessageType type, ReadOnlySpan<ulong> pages)
    {
        while (!pages.IsEmpty && _connection is { } link)
        {
            int count = Math.Min(pages.Length, DemandServer.MostRequested);
            int bytes = count * sizeof(ulong);
            PeerConnection.WriteHeader(_frame, type, bytes + PeerConnection.CheckBytes);
            for (int i = 0; i < count; i++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(_frame.AsSpan(PeerConnection.HeaderBytes + (i * sizeof(ulong))), pages[i]);
            }

            Span<byte> payload = _frame.AsSpan(PeerConnection.HeaderBytes, bytes);
            PeerConnection.WriteCheck(_frame.AsSpan(PeerConnection.HeaderBytes + bytes, PeerConnection.CheckBytes), payload);
            try
            {
                link.SendFrame(_frame.AsSpan(0, PeerConnection.HeaderBytes + bytes + PeerConnection.CheckBytes));
            }
            catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
            {
                // The guest stalls on these pages until they are asked for again; the engine goes on answering what is here.
                _connection = null;
                _lost(failure);
                return;
            }

            pages = pages[count..];
        }
    }
}
