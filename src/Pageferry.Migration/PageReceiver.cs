using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// The destination's end of one page connection, for one thread or several: they take turns at receiving a frame, and what one has received it places while the
/// next one receives.
/// </summary>
/// <remarks>A connection's frames are so placed in any order, but never those of a round before all of the round before it.</remarks>
internal sealed class PageReceiver(PeerConnection connection, IncomingPages pages, ConnectionRole role)
{
    private readonly Lock _turn = new();
    private uint _round = 1;
    private int _placing;
    private bool _isOver;

    /// <summary>
    /// How many threads receive. Placing takes longer than receiving where pages come that nobody waits for, so one connection alone has two; more threads than
    /// connections would only compete with the pages that the guest waits for.
    /// </summary>
    internal int Threads => role == ConnectionRole.Background && pages.BackgroundConnections == 1 ? 2 : 1;

    /// <summary>Receives and places until the source says that all is sent, or the connection ends; on each of <see cref="Threads"/>.</summary>
    internal void ReceiveAll()
    {
        if (role == ConnectionRole.Demand)
        {
            DemandThread.Begin();
        }

        using var arrival = new PageArrival(connection, pages, role);
        while (TryReceive(arrival))
        {
            try
            {
                arrival.Place();
            }
            finally
            {
                if (!arrival.IsPlaced)
                {
                    pages.Finish();
                }

                _ = Interlocked.Decrement(ref _placing);
            }
        }
    }

    /// <returns>Whether there is something to place; false if nothing more comes.</returns>
    private bool TryReceive(PageArrival arrival)
    {
        lock (_turn)
        {
            if (_isOver)
            {
                return false;
            }

            // A turn that ends by a failure was the last one: what follows in the stream means nothing any more.
            _isOver = true;
            while (true)
            {
                (MessageType type, int bytes) = connection.ReceiveHeader();
                switch (type)
                {
                    case MessageType.Pages when bytes is >= PageBatch.Bytes and <= PageBatch.Bytes + PageBatch.MostPayloadBytes:
                        Begin(arrival);
                        arrival.ReceiveBatch(bytes - PageBatch.Bytes);
                        break;

                    case MessageType.ZeroPages when bytes == ZeroRun.Bytes:
                        Begin(arrival);
                        arrival.ReceiveZeros();
                        break;

                    case MessageType.Barrier when role == ConnectionRole.Background && bytes == sizeof(uint):
                        ReceiveBarrier();
                        continue;

                    case MessageType.BackgroundDone when role == ConnectionRole.Background && bytes == 0 && pages.Switchover != 0:
                        return false;

                    default:
                        throw new ProtocolException($"The source sent a frame {type} of {bytes} bytes on the {role} connection.");
                }

                CheckGeneration(arrival);
                _ = Interlocked.Increment(ref _placing);
                _isOver = false;
                return true;
            }
        }
    }

    private void ReceiveBarrier()
    {
        Span<byte> generation = stackalloc byte[sizeof(uint)];
        connection.ReceivePayload(MessageType.Barrier, generation);
        SpinWait.SpinUntil(() => Volatile.Read(ref _placing) == 0);
        pages.ReachBarrier(BinaryPrimitives.ReadUInt32LittleEndian(generation));
        _round++;
    }

    private void Begin(PageArrival arrival)
    {
        arrival.IsPlaced = pages.Switchover != 0;
        if (!arrival.IsPlaced)
        {
            pages.Begin();
        }
    }

    /// <summary>Nothing that is older than what is here is taken.</summary>
    private void CheckGeneration(PageArrival arrival)
    {
        uint due = arrival.IsPlaced ? pages.Switchover : role == ConnectionRole.Background ? _round : 0;
        if (arrival.Generation != due)
        {
            throw new ProtocolException($"The source sent pages of generation {arrival.Generation} on the {role} connection where {(due == 0 ? "none are" : $"generation {due} is")} due.");
        }

        if (!arrival.IsPlaced && pages.Counters.Phase == MigrationPhase.Preparing)
        {
            pages.Counters.Phase = MigrationPhase.PreCopy;
        }
    }
}
