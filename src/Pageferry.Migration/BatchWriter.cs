using System.Diagnostics;
using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// Writes batches of background pages to a connection: looks for zeros, tells what changed where that pays, compresses where that pays, and digests.
/// One thread's; its buffers are native memory, made once.
/// </summary>
internal sealed class BatchWriter : IDisposable
{
    /// <summary>A payload that compression does not make smaller than this goes as it is, which is faster to take.</summary>
    private const double WorthIt = 0.95;

    /// <summary>Before each buffer, so that a frame is sent at once.</summary>
    private const int Room = PageBatch.PrologueBytes;

    /// <summary>From one buffer to the next.</summary>
    private const int BufferBytes = Room + PageBatch.MostPayloadBytes;

    private readonly PeerConnection _connection;
    private readonly MigrationCounters _counters;
    private readonly CompressionChoice _choice;
    private readonly PagePacking _packing = new();
    private readonly NativeBuffer _buffers = new(3 * BufferBytes);
    private readonly byte[] _zeroRun = new byte[ZeroRun.FrameBytes];

    /// <param name="connection">Where to.</param>
    /// <param name="choice">How.</param>
    /// <param name="counters">Counts what was sent.</param>
    internal BatchWriter(PeerConnection connection, CompressionChoice choice, MigrationCounters counters)
    {
        _connection = connection;
        _counters = counters;
        _choice = choice;
    }

    /// <summary>How fast.</summary>
    internal BandwidthLimit Limit { get; set; } = new(0);

    /// <summary>Room for the content of a batch's pages, of which page n begins at byte n · 4096.</summary>
    internal Span<byte> Content => Buffer(0).Slice(Room, PageBatch.MostPages * Page.Size);

    private Span<byte> Buffer(int number) => _buffers.Span(number * BufferBytes, BufferBytes);

    /// <summary>Sends pages whose content is in <see cref="Content"/>, where it is overwritten.</summary>
    /// <param name="first">The page that bit 0 stands for.</param>
    /// <param name="pages">The pages; at least one.</param>
    /// <param name="generation">The round, or the switchover's.</param>
    /// <param name="sent">What the pages were sent with before, to tell what changed; null for all of them whole.</param>
    /// <param name="damaged">Pages that have to go whole, which are taken out.</param>
    internal void Send(ulong first, ulong pages, uint generation, SentContent? sent, PageBitmap? damaged)
    {
        long began = Stopwatch.GetTimestamp();
        ulong zeros = ZerosAmong(pages);
        ulong whole = pages & ~zeros;
        ReadOnlySpan<byte> gathered = Gather(whole);
        ulong deltas = 0;
        int unpacked = gathered.Length;
        int at = 0;
        bool tellsChanges = sent is not null && _choice.DeltasPay;
        if (sent is not null)
        {
            Forget(sent, first, tellsChanges ? zeros : pages);
        }

        if (tellsChanges)
        {
            unpacked = TellChanges(first, whole, generation, gathered, sent!, damaged, out deltas);
            at = deltas != 0 ? 1 : 0;
        }

        PageEncoding tried = unpacked > 0 ? _choice.Next() : PageEncoding.None;
        ReadOnlySpan<byte> payload = at == 0 ? gathered : Buffer(1).Slice(Room, unpacked);
        PageEncoding encoding = PageEncoding.None;
        int bytes = unpacked;
        if (tried != PageEncoding.None && _packing.Pack(tried, payload, Buffer(2).Slice(Room, (int)(unpacked * WorthIt))) is > 0 and int packed)
        {
            (encoding, bytes, at) = (tried, packed, 2);
        }

        var batch = new PageBatch(first, whole, zeros, deltas, generation, encoding, unpacked, PageBatch.DigestOf(gathered));
        long packedAt = Stopwatch.GetTimestamp();
        batch.Write(Buffer(at), bytes);
        _connection.SendFrame(Buffer(at)[..(Room + bytes)]);
        _counters.AddBackground(batch, bytes);

        // Behind the batch: nobody else may send these pages, and the guest may begin to wait for one of them.
        Limit.Pay(Room + bytes, _connection.Ended);
        _choice.Learn(
            tried, unpacked, Room + bytes, Stopwatch.GetElapsedTime(began, packedAt).TotalNanoseconds, Stopwatch.GetElapsedTime(packedAt).TotalNanoseconds);
    }

    /// <summary>Sends the news of zero pages.</summary>
    internal void SendZeros(ulong first, ulong count, uint generation)
    {
        var run = new ZeroRun(first, count, generation);
        run.Write(_zeroRun);
        _connection.SendFrame(_zeroRun);
        _counters.AddZeros(run);
    }

    public void Dispose()
    {
        _packing.Dispose();
        _buffers.Dispose();
    }

    private ulong ZerosAmong(ulong pages)
    {
        ReadOnlySpan<byte> content = Content;
        ulong zeros = 0;
        for (ulong left = pages; left != 0; left &= left - 1)
        {
            int n = BitOperations.TrailingZeroCount(left);
            zeros |= content.Slice(n * Page.Size, Page.Size).ContainsAnyExcept((byte)0) ? 0 : 1UL << n;
        }

        return zeros;
    }

    private static void Forget(SentContent sent, ulong first, ulong pages)
    {
        for (; pages != 0; pages &= pages - 1)
        {
            sent.Forget(first + (ulong)BitOperations.TrailingZeroCount(pages));
        }
    }

    /// <summary>Moves the content of pages together, to the beginning of <see cref="Content"/>.</summary>
    private ReadOnlySpan<byte> Gather(ulong pages)
    {
        Span<byte> content = Content;
        int bytes = 0;
        while (pages != 0)
        {
            (int first, int count) = PageBatch.TakeRun(ref pages);
            if (first * Page.Size != bytes)
            {
                content.Slice(first * Page.Size, count * Page.Size).CopyTo(content[bytes..]);
            }

            bytes += count * Page.Size;
        }

        return content[..bytes];
    }

    /// <summary>Writes the payload with what changed in the pages that were sent before, and holds what is sent now.</summary>
    /// <returns>The payload's size in the second buffer, where there are deltas; else that of the content.</returns>
    private int TellChanges(ulong first, ulong pages, uint generation, ReadOnlySpan<byte> gathered, SentContent sent, PageBitmap? damaged, out ulong deltas)
    {
        deltas = 0;
        Span<byte> payload = Buffer(1)[Room..];
        int bytes = 0;
        for (ulong left = pages; left != 0; left &= left - 1)
        {
            int n = BitOperations.TrailingZeroCount(left);
            ulong page = first + (ulong)n;
            ReadOnlySpan<byte> now = gathered[..Page.Size];
            gathered = gathered[Page.Size..];
            Span<byte> before = damaged?.Take(page) == true ? [] : sent.Find(page);
            int delta = before.IsEmpty ? -1 : DeltaCoding.Encode(before, now, payload.Slice(bytes + DeltaCoding.LengthBytes, DeltaCoding.MostBytes));
            if (delta >= 0)
            {
                DeltaCoding.WriteSize(payload[bytes..], delta);
                deltas |= 1UL << n;
                bytes += DeltaCoding.LengthBytes + delta;
            }
            else
            {
                now.CopyTo(payload[bytes..]);
                bytes += Page.Size;
            }

            sent.Keep(page, generation, now);
        }

        return bytes;
    }
}
