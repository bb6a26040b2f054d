using System.Buffers.Binary;
using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The destination's end of one page connection: from the socket into a buffer, checked, and placed.</summary>
/// <remarks>Content stays in the CPU's cache from the socket to the copy into guest memory. Nothing is placed before its digest holds.</remarks>
internal sealed class PageReceiver(PeerConnection connection, IncomingPages pages, ConnectionRole role) : IDisposable
{
    /// <summary>In the lane's buffer: behind the content the payload before deltas are applied, and behind that the payload as it came.</summary>
    private const int UnpackedAt = PageBatch.MostPages * Page.Size;
    private const int PackedAt = UnpackedAt + PageBatch.MostPayloadBytes;

    private readonly byte[] _said = new byte[PageBatch.Bytes];
    private readonly PagePacking _packing = new();
    private uint _round = 1;

    /// <summary>Receives until the source says that all is sent, or the connection ends.</summary>
    internal void ReceiveAll()
    {
        using PageLane lane = pages.Engine.CreateLane();
        while (true)
        {
            (MessageType type, int bytes) = connection.ReceiveHeader();
            switch (type)
            {
                case MessageType.Pages when bytes is >= PageBatch.Bytes and <= PageBatch.Bytes + PageBatch.MostPayloadBytes:
                    ReceiveBatch(lane, bytes - PageBatch.Bytes);
                    break;

                case MessageType.ZeroPages when bytes == ZeroRun.Bytes:
                    ReceiveZeros(lane);
                    break;

                case MessageType.Barrier when role == ConnectionRole.Background && bytes == sizeof(uint):
                    ReceiveBarrier();
                    break;

                case MessageType.BackgroundDone when role == ConnectionRole.Background && bytes == 0 && pages.Switchover != 0:
                    return;

                default:
                    throw new ProtocolException($"The source sent a frame {type} of {bytes} bytes on the {role} connection.");
            }
        }
    }

    public void Dispose() => _packing.Dispose();

    private void ReceiveBarrier()
    {
        Span<byte> generation = _said.AsSpan(0, sizeof(uint));
        connection.ReceiveAll(generation);
        pages.ReachBarrier(BinaryPrimitives.ReadUInt32LittleEndian(generation));
        _round++;
    }

    private void ReceiveBatch(PageLane lane, int payloadBytes)
    {
        connection.ReceiveAll(_said);
        PageBatch batch = PageBatch.Read(_said, payloadBytes, pages.Engine.Memory.PageCount);
        bool isPlaced = CheckGeneration(batch.Generation);
        Span<byte> content = lane.Buffer[..(batch.ContentPages * Page.Size)];
        if (ReceiveContent(lane, batch, payloadBytes, content) && PageBatch.DigestOf(content) == batch.Digest)
        {
            PlaceContent(lane, batch, isPlaced);
            pages.TakeWhole(batch.First, batch.Content);
        }
        else
        {
            pages.TakeDamaged(batch.First, batch.Content);
        }

        for (ulong left = batch.Zeros; left != 0;)
        {
            (int first, int count) = PageBatch.TakeRun(ref left);
            PlaceZeros(lane, batch.First + (ulong)first, (ulong)count, isPlaced);
        }

        pages.TakeWhole(batch.First, batch.Zeros);
        Count(batch.ContentPages, BitOperations.PopCount(batch.Zeros), PageBatch.PrologueBytes + payloadBytes);
    }

    private void ReceiveZeros(PageLane lane)
    {
        Span<byte> said = _said.AsSpan(0, ZeroRun.Bytes);
        connection.ReceiveAll(said);
        var run = ZeroRun.Read(said, pages.Engine.Memory.PageCount);
        PlaceZeros(lane, run.First, run.Count, CheckGeneration(run.Generation));
        Count(0, (long)run.Count, ZeroRun.FrameBytes);
    }

    /// <summary>Nothing that is older than what is here is taken.</summary>
    /// <returns>Whether the guest has switched over.</returns>
    private bool CheckGeneration(uint generation)
    {
        uint switchover = pages.Switchover;
        uint due = switchover != 0 ? switchover : role == ConnectionRole.Background ? _round : 0;
        if (switchover == 0 && pages.Counters.Phase == MigrationPhase.Preparing)
        {
            pages.Counters.Phase = MigrationPhase.PreCopy;
        }

        return generation == due
            ? switchover != 0
            : throw new ProtocolException($"The source sent pages of generation {generation} on the {role} connection where {(due == 0 ? "none are" : $"generation {due} is")} due.");
    }

    /// <summary>Receives a payload and makes it the pages' content.</summary>
    /// <returns>Whether it was whole as far as that can be told without the digest.</returns>
    private bool ReceiveContent(PageLane lane, in PageBatch batch, int payloadBytes, Span<byte> content)
    {
        if (batch.Encoding == PageEncoding.None && batch.Deltas == 0)
        {
            connection.ReceiveAll(content);
            return true;
        }

        Span<byte> payload = lane.Buffer.Slice(PackedAt, payloadBytes);
        connection.ReceiveAll(payload);
        if (batch.Encoding != PageEncoding.None)
        {
            Span<byte> unpacked = batch.Deltas == 0 ? content : lane.Buffer.Slice(UnpackedAt, batch.UnpackedBytes);
            if (!_packing.TryUnpack(batch.Encoding, payload, unpacked))
            {
                return false;
            }

            payload = unpacked;
        }

        return batch.Deltas == 0 || ApplyDeltas(batch, payload, content);
    }

    private bool ApplyDeltas(in PageBatch batch, ReadOnlySpan<byte> payload, Span<byte> content)
    {
        for (ulong left = batch.Content; left != 0; left &= left - 1)
        {
            int n = BitOperations.TrailingZeroCount(left);
            ulong page = batch.First + (ulong)n;
            bool isDelta = (batch.Deltas & (1UL << n)) != 0;
            int bytes = !isDelta ? Page.Size : payload.Length >= DeltaCoding.LengthBytes ? DeltaCoding.ReadSize(payload) : int.MaxValue;
            payload = isDelta && bytes != int.MaxValue ? payload[DeltaCoding.LengthBytes..] : payload;

            // Only what is here can be changed; it may not be, where what was sent before arrived damaged.
            if (bytes > payload.Length || (isDelta && pages.Engine.States[page] != PageState.Present))
            {
                return false;
            }

            Span<byte> to = content[..Page.Size];
            if (isDelta)
            {
                pages.Engine.Memory.ReadPages(page, to);
                if (!DeltaCoding.TryApply(payload[..bytes], to))
                {
                    return false;
                }
            }
            else
            {
                payload[..bytes].CopyTo(to);
            }

            payload = payload[bytes..];
            content = content[Page.Size..];
        }

        return payload.IsEmpty;
    }

    private void PlaceContent(PageLane lane, in PageBatch batch, bool isPlaced)
    {
        int at = 0;
        for (ulong left = batch.Content; left != 0;)
        {
            (int run, int count) = PageBatch.TakeRun(ref left);
            ulong first = batch.First + (ulong)run;
            if (pages.Digests is { } digests)
            {
                for (int i = 0; i < count; i++)
                {
                    digests.Set(first + (ulong)i, lane.Buffer.Slice((at + i) * Page.Size, Page.Size));
                }
            }

            if (!isPlaced)
            {
                lane.Refresh(first, count, at);
            }
            else if (lane.Place(first, count, at) < count)
            {
                CheckUnwanted(first, (ulong)count);
            }

            at += count;
        }
    }

    private void PlaceZeros(PageLane lane, ulong first, ulong count, bool isPlaced)
    {
        pages.Digests?.SetZero(first, count);
        if (!isPlaced)
        {
            lane.RefreshZero(first, count);
        }
        else if (lane.Zero(first, count) < count)
        {
            CheckUnwanted(first, count);
        }
    }

    /// <summary>What is not wanted was removed by the guest, or is sent again because it arrived damaged; no source sends a page twice otherwise.</summary>
    private void CheckUnwanted(ulong first, ulong count)
    {
        if (pages.Engine.Statistics.RemovedPages == 0 && pages.Counters.Damaged == 0)
        {
            throw new ProtocolException($"The source sent a page of the {count} from {first} twice.");
        }
    }

    private void Count(long content, long zeros, long bytes)
    {
        if (role == ConnectionRole.Demand)
        {
            pages.Counters.AddDemand(content, zeros, bytes);
        }
        else
        {
            pages.Counters.AddBackground(content, zeros, bytes);
        }
    }
}
