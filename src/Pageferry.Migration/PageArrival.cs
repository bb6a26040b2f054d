using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>A frame of pages on its way into guest memory: from the socket into a buffer, checked, and placed. One thread's.</summary>
/// <remarks>Content stays in the CPU's cache from the socket to the copy into guest memory. Nothing is placed before its digest holds.</remarks>
internal sealed class PageArrival : IDisposable
{
    /// <summary>In the lane's buffer: behind the content the payload before deltas are applied, and behind that the payload as it came.</summary>
    private const int UnpackedAt = PageBatch.MostPages * Page.Size;
    private const int PackedAt = UnpackedAt + PageBatch.MostPayloadBytes;

    private readonly PeerConnection _connection;
    private readonly IncomingPages _pages;
    private readonly ConnectionRole _role;
    private readonly PageLane _lane;
    private readonly byte[] _said = new byte[PageBatch.Bytes];
    private readonly PagePacking _packing = new();
    private PageBatch? _batch;
    private ZeroRun _zeros;
    private int _payloadBytes;

    /// <param name="connection">Where frames come from.</param>
    /// <param name="pages">Where they go to.</param>
    /// <param name="role">What the connection is for.</param>
    internal PageArrival(PeerConnection connection, IncomingPages pages, ConnectionRole role)
    {
        _connection = connection;
        _pages = pages;
        _role = role;
        _lane = pages.Engine.CreateLane();
    }

    /// <summary>The round, or the switchover's number, of what was received last.</summary>
    internal uint Generation { get; private set; }

    /// <summary>Whether what is received is placed, for a guest that has switched over; otherwise it is refreshed.</summary>
    internal bool IsPlaced { get; set; }

    /// <summary>Receives the rest of a batch's frame.</summary>
    /// <param name="payloadBytes">The payload's size; at most <see cref="PageBatch.MostPayloadBytes"/>.</param>
    internal void ReceiveBatch(int payloadBytes)
    {
        _connection.ReceiveAll(_said);
        var batch = PageBatch.Read(_said, payloadBytes, _pages.Engine.Memory.PageCount);
        Generation = batch.Generation;
        _connection.ReceiveAll(_lane.Buffer.Slice(IsContent(batch) ? 0 : PackedAt, payloadBytes));
        _payloadBytes = payloadBytes;
        _batch = batch;
    }

    /// <summary>Receives the rest of a frame of zero pages.</summary>
    internal void ReceiveZeros()
    {
        Span<byte> said = _said.AsSpan(0, ZeroRun.Bytes);
        _connection.ReceiveAll(said);
        _zeros = ZeroRun.Read(said, _pages.Engine.Memory.PageCount);
        Generation = _zeros.Generation;
        _batch = null;
    }

    /// <summary>Places what was received last.</summary>
    internal void Place()
    {
        if (_batch is { } batch)
        {
            PlaceBatch(batch);
        }
        else
        {
            PlaceZeros(_zeros.First, _zeros.Count);
            _pages.Counters.AddZeros(_zeros);
        }
    }

    public void Dispose()
    {
        _lane.Dispose();
        _packing.Dispose();
    }

    private static bool IsContent(in PageBatch batch) => batch.Encoding == PageEncoding.None && batch.Deltas == 0;

    private void PlaceBatch(in PageBatch batch)
    {
        Span<byte> content = _lane.Buffer[..(batch.ContentPages * Page.Size)];
        if ((IsContent(batch) || TryUnpack(batch, content)) && PageBatch.DigestOf(content) == batch.Digest)
        {
            PlaceContent(batch);
            _pages.TakeWhole(batch.First, batch.Content);
        }
        else
        {
            _pages.TakeDamaged(batch.First, batch.Content);
        }

        for (ulong left = batch.Zeros; left != 0;)
        {
            (int first, int count) = PageBatch.TakeRun(ref left);
            PlaceZeros(batch.First + (ulong)first, (ulong)count);
        }

        _pages.TakeWhole(batch.First, batch.Zeros);
        if (_role == ConnectionRole.Demand)
        {
            _pages.Counters.AddDemand(batch, _payloadBytes);
        }
        else
        {
            _pages.Counters.AddBackground(batch, _payloadBytes);
        }
    }

    /// <summary>Makes the payload the pages' content.</summary>
    /// <returns>Whether it was whole as far as that can be told without the digest.</returns>
    private bool TryUnpack(in PageBatch batch, Span<byte> content)
    {
        Span<byte> payload = _lane.Buffer.Slice(PackedAt, _payloadBytes);
        if (batch.Encoding != PageEncoding.None)
        {
            Span<byte> unpacked = batch.Deltas == 0 ? content : _lane.Buffer.Slice(UnpackedAt, batch.UnpackedBytes);
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
            if (bytes > payload.Length || (isDelta && _pages.Engine.States[page] != PageState.Present))
            {
                return false;
            }

            Span<byte> to = content[..Page.Size];
            if (isDelta)
            {
                _pages.Engine.Memory.ReadPages(page, to);
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

    private void PlaceContent(in PageBatch batch)
    {
        int at = 0;
        for (ulong left = batch.Content; left != 0;)
        {
            (int run, int count) = PageBatch.TakeRun(ref left);
            ulong first = batch.First + (ulong)run;
            if (_pages.Digests is { } digests)
            {
                for (int i = 0; i < count; i++)
                {
                    digests.Set(first + (ulong)i, _lane.Buffer.Slice((at + i) * Page.Size, Page.Size));
                }
            }

            if (!IsPlaced)
            {
                _lane.Refresh(first, count, at);
            }
            else if (_lane.Place(first, count, at) < count)
            {
                CheckUnwanted(first, (ulong)count);
            }

            at += count;
        }
    }

    private void PlaceZeros(ulong first, ulong count)
    {
        _pages.Digests?.SetZero(first, count);
        if (!IsPlaced)
        {
            _lane.RefreshZero(first, count);
        }
        else if (_lane.Zero(first, count) < count)
        {
            CheckUnwanted(first, count);
        }
    }

    /// <summary>What is not wanted was removed by the guest, or is sent again because it arrived damaged; no source sends a page twice otherwise.</summary>
    private void CheckUnwanted(ulong first, ulong count)
    {
        if (_pages.Engine.Statistics.RemovedPages == 0 && _pages.Counters.Damaged == 0)
        {
            throw new ProtocolException($"The source sent a page of the {count} from {first} twice.");
        }
    }
}
