using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The source's end of one background connection. Its thread holds back while a page is sent that the guest waits for.</summary>
internal sealed class BackgroundSender : IDisposable
{
    /// <summary>Pages of a batch: half of what the masks hold stays in a CPU's cache from the digest to the socket, and the guest waits half as long for one among them.</summary>
    private const int PagesPerBatch = 32;

    /// <summary>Neighbouring pages that one connection sends all versions of, so that none overtakes another.</summary>
    internal const ulong PagesPerStripe = 512;

    /// <summary>What the senders together remember of what they sent: 64 MiB, QEMU's xbzrle-cache-size.</summary>
    private const int RememberedBytes = 64 << 20;

    private readonly PeerConnection _connection;
    private readonly OutgoingPages _pages;
    private readonly int _index;
    private readonly int _count;
    private readonly BatchWriter _writer;
    private SentContent? _sent;

    /// <param name="connection">The connection.</param>
    /// <param name="pages">What is to be sent.</param>
    /// <param name="index">Which of the background connections it is.</param>
    /// <param name="count">How many of them there are.</param>
    /// <param name="compression">How content is compressed.</param>
    /// <param name="counters">Counts what was sent.</param>
    internal BackgroundSender(PeerConnection connection, OutgoingPages pages, int index, int count, MigrationCompression compression, MigrationCounters counters)
    {
        _connection = connection;
        _pages = pages;
        _index = index;
        _count = count;
        _writer = new BatchWriter(connection, new CompressionChoice(compression), counters);
    }

    /// <summary>Makes the senders of a link's background connections.</summary>
    internal static BackgroundSender[] Of(OutgoingConnections link, OutgoingPages pages, MigrationCompression compression, MigrationCounters counters) =>
        [.. link.Background.Select((connection, index) => new BackgroundSender(connection, pages, index, link.Background.Count, compression, counters))];

    /// <summary>How fast it sends.</summary>
    internal BandwidthLimit Limit
    {
        set => _writer.Limit = value;
    }

    /// <summary>Sends what is pending of this connection's stripes, once, and a barrier.</summary>
    /// <param name="generation">The round.</param>
    /// <param name="tracker">Tells what the guest writes meanwhile; null if it stands still.</param>
    /// <param name="until">When to stop and leave the rest pending, by <see cref="Stopwatch"/>.</param>
    internal void SendRound(uint generation, IDirtyTracker? tracker, long until)
    {
        ulong all = _pages.Memory.PageCount;
        ulong step = (ulong)_count * PagesPerStripe;
        for (ulong stripe = (ulong)_index * PagesPerStripe; stripe < all && Stopwatch.GetTimestamp() < until; stripe += step)
        {
            ulong end = Math.Min(stripe + PagesPerStripe, all);
            if (_pages.Pending.Next(stripe, end) < end)
            {
                tracker?.Rearm(stripe, end - stripe);
                SendStripe(stripe, end, generation, until);
            }
        }

        Span<byte> barrier = stackalloc byte[sizeof(uint)];
        System.Buffers.Binary.BinaryPrimitives.WriteUInt32LittleEndian(barrier, generation);
        _connection.Send(MessageType.Barrier, barrier);
    }

    /// <summary>Sends what is pending, of whatever stripe, until nothing is; the guest stands still here.</summary>
    /// <param name="generation">The switchover's.</param>
    internal void Drain(uint generation)
    {
        ForgetSent();
        while (true)
        {
            while (_pages.DemandInHand)
            {
                _ = Thread.Yield();
            }

            ulong page = _pages.FindNext(PagesPerBatch);
            if (page == _pages.Memory.PageCount)
            {
                _connection.Send(MessageType.BackgroundDone, []);
                return;
            }

            _ = SendNext(page, _pages.Memory.PageCount, generation, sent: null);
        }
    }

    public void Dispose()
    {
        ForgetSent();
        _writer.Dispose();
    }

    private void ForgetSent()
    {
        _sent?.Dispose();
        _sent = null;
    }

    private void SendStripe(ulong page, ulong end, uint generation, long until)
    {
        // Most pages are sent once: what they were sent with is of use from the second round on.
        if (generation > 1)
        {
            _sent ??= new SentContent(RememberedBytes / _count / Page.Size * Page.Size, _count);
        }

        while ((page = _pages.Pending.Next(page, end)) < end && Stopwatch.GetTimestamp() < until)
        {
            page = SendNext(page, end, generation, _sent);
        }
    }

    /// <returns>The page behind what was sent.</returns>
    private ulong SendNext(ulong page, ulong end, uint generation, SentContent? sent)
    {
        ulong content = Math.Min(_pages.Memory.NextContent(page), end);
        return content > page ? SendHole(page, content, generation, sent) : SendBatch(page, generation, sent);
    }

    /// <summary>Sends the news of pages that have no content, never had or gave it back, without populating them.</summary>
    private ulong SendHole(ulong page, ulong end, uint generation, SentContent? sent)
    {
        ulong first = page;
        while (page < end)
        {
            if (_pages.Pending.Take(page))
            {
                sent?.Forget(page);
                page++;
                continue;
            }

            SendZeros(first, page, generation);
            page = _pages.Pending.Next(page, end);
            first = page;
        }

        SendZeros(first, page, generation);
        return page;
    }

    private void SendZeros(ulong first, ulong end, uint generation)
    {
        if (end > first)
        {
            _writer.SendZeros(first, end - first, generation);
        }
    }

    private ulong SendBatch(ulong page, uint generation, SentContent? sent)
    {
        ulong first = page & ~(PagesPerBatch - 1UL);
        ulong word = page & ~(PageBitmap.PagesPerWord - 1UL);
        int shift = (int)(first - word);
        ulong mine = _pages.Pending.TakeWord(word, ((1UL << PagesPerBatch) - 1) << shift) >> shift;
        if (mine != 0)
        {
            // A copy: the guest may write meanwhile.
            for (ulong left = mine; left != 0;)
            {
                (int run, int count) = PageBatch.TakeRun(ref left);
                _pages.Memory.ReadPages(first + (ulong)run, _writer.Content.Slice(run * Page.Size, count * Page.Size));
            }

            _writer.Send(first, mine, generation, sent, _pages.Damaged);
        }

        return first + PagesPerBatch;
    }
}
