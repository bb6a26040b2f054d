using System.Buffers.Binary;
using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// The source's pages on their way: what is asked for first, everything else behind it, each page once.
/// </summary>
/// <remarks>
/// Two threads, one per connection. The background thread starts no frame while a request is in hand, goes on behind the last page that was
/// asked for, and wraps around at the end. Neither allocates per page.
/// </remarks>
internal sealed class PageServer
{
    private readonly GuestMemory _memory;
    private readonly MigrationCounters _counters;
    private readonly SentPages _sent;
    private readonly byte[] _zeroFrame = new byte[PageFrames.PrologueBytes];
    private readonly byte[] _prologue = new byte[PageFrames.PrologueBytes];
    private readonly byte[] _bounce;
    private ulong _behindDemand = ulong.MaxValue;
    private volatile bool _demandInHand;

    internal PageServer(GuestMemory memory, MigrationCounters counters)
    {
        _memory = memory;
        _counters = counters;
        _sent = new SentPages(memory.PageCount);
        _bounce = memory.HasHostView ? [] : new byte[SentPages.PagesPerWord * Page.Size];
    }

    /// <summary>Answers requests until the destination ends the connection.</summary>
    internal void ServeDemand(PeerConnection connection)
    {
        var request = new byte[PageFrames.MostRequested * sizeof(ulong)];
        var frame = new byte[PageFrames.PrologueBytes + Page.Size];
        while (true)
        {
            (MessageType type, int bytes) = connection.ReceiveHeader();
            if (type != MessageType.PageRequest || bytes == 0 || bytes > request.Length || bytes % sizeof(ulong) != 0)
            {
                throw new ProtocolException($"The destination sent a frame {type} of {bytes} bytes on the demand connection.");
            }

            _demandInHand = true;
            connection.ReceiveAll(request.AsSpan(0, bytes));
            for (int at = 0; at < bytes; at += sizeof(ulong))
            {
                ulong page = BinaryPrimitives.ReadUInt64LittleEndian(request.AsSpan(at));
                if (page >= _memory.PageCount)
                {
                    throw new ProtocolException($"The destination asked for page {page} of a memory of {_memory.PageCount} pages.");
                }

                Volatile.Write(ref _behindDemand, page + 1);

                // A page that is claimed already is on its way in the background.
                if (_sent.Claim(page))
                {
                    SendOne(connection, frame, page);
                }
            }

            _demandInHand = false;
        }
    }

    /// <summary>Sends every page that nobody asks for, then says that all are sent.</summary>
    internal void FillBackground(PeerConnection connection)
    {
        ulong at = 0;
        while (true)
        {
            while (_demandInHand)
            {
                _ = Thread.Yield();
            }

            ulong behind = Interlocked.Exchange(ref _behindDemand, ulong.MaxValue);
            at = _sent.NextUnclaimed(behind < _memory.PageCount ? behind : at);
            if (at == _memory.PageCount)
            {
                at = _sent.NextUnclaimed(0);
                if (at == _memory.PageCount)
                {
                    connection.Send(MessageType.BackgroundDone, []);
                    return;
                }
            }

            at = _memory.NextContent(at) > at ? SendHole(connection, at) : SendWord(connection, at);
        }
    }

    private void SendOne(PeerConnection connection, byte[] frame, ulong page)
    {
        Span<byte> content = frame.AsSpan(PageFrames.PrologueBytes);
        bool zero = _memory.NextContent(page) != page;
        if (!zero)
        {
            _memory.ReadPages(page, content);
            zero = IsZero(content);
        }

        if (zero)
        {
            PageFrames.WriteZeroPages(frame, page, 1);
            connection.SendAll(frame.AsSpan(0, PageFrames.PrologueBytes));
            _counters.AddZero(1);
            _counters.AddDemand(0, PageFrames.PrologueBytes);
        }
        else
        {
            PageFrames.WritePages(frame, page, 1);
            connection.SendAll(frame);
            _counters.AddDemand(1, frame.Length);
        }
    }

    /// <summary>Sends the news of a run of pages that were never written, without populating them.</summary>
    /// <returns>The page behind the run.</returns>
    private ulong SendHole(PeerConnection connection, ulong page)
    {
        ulong end = _memory.NextContent(page);
        ulong first = page;
        while (page < end)
        {
            if (_sent.Claim(page))
            {
                page++;
                continue;
            }

            SendZeroRun(connection, first, page - first);
            first = ++page;
        }

        SendZeroRun(connection, first, page - first);
        return page;
    }

    /// <summary>Sends what is unclaimed of 64 pages.</summary>
    /// <returns>The page behind them.</returns>
    private ulong SendWord(PeerConnection connection, ulong page)
    {
        ulong basePage = page - (page % SentPages.PagesPerWord);
        ulong mine = _sent.ClaimWord(page);
        ReadOnlySpan<byte> content = Content(basePage);
        ulong zeros = 0;
        for (ulong left = mine; left != 0; left &= left - 1)
        {
            int n = BitOperations.TrailingZeroCount(left);
            zeros |= IsZero(content.Slice(n * Page.Size, Page.Size)) ? 1UL << n : 0;
        }

        SendRuns(connection, basePage, mine & ~zeros, content);
        for (ulong left = zeros; left != 0;)
        {
            (int first, int count) = TakeRun(ref left);
            SendZeroRun(connection, basePage + (ulong)first, (ulong)count);
        }

        return basePage + SentPages.PagesPerWord;
    }

    private void SendRuns(PeerConnection connection, ulong basePage, ulong pages, ReadOnlySpan<byte> content)
    {
        while (pages != 0)
        {
            (int first, int count) = TakeRun(ref pages);
            PageFrames.WritePages(_prologue, basePage + (ulong)first, count);
            connection.SendAll(_prologue);
            connection.SendAll(content.Slice(first * Page.Size, count * Page.Size));
            _counters.AddBackground(count, PageFrames.PrologueBytes + (count * Page.Size));
        }
    }

    private void SendZeroRun(PeerConnection connection, ulong page, ulong count)
    {
        if (count > 0)
        {
            PageFrames.WriteZeroPages(_zeroFrame, page, count);
            connection.SendAll(_zeroFrame);
            _counters.AddZero((long)count);
            _counters.AddBackground(0, PageFrames.PrologueBytes);
        }
    }

    /// <summary>The content of up to 64 pages: the host view itself where there is one.</summary>
    private ReadOnlySpan<byte> Content(ulong page)
    {
        int count = (int)Math.Min(SentPages.PagesPerWord, _memory.PageCount - page);
        if (_memory.HasHostView)
        {
            return _memory.HostViewOfPages(page, count);
        }

        Span<byte> copy = _bounce.AsSpan(0, count * Page.Size);
        _memory.ReadPages(page, copy);
        return copy;
    }

    /// <summary>Takes the lowest run of set bits out of a word.</summary>
    private static (int First, int Count) TakeRun(ref ulong bits)
    {
        int first = BitOperations.TrailingZeroCount(bits);
        int count = BitOperations.TrailingZeroCount(~(bits >> first));
        bits &= count == 64 ? 0 : ~(((1UL << count) - 1) << first);
        return (first, count);
    }

    private static bool IsZero(ReadOnlySpan<byte> content) => !content.ContainsAnyExcept((byte)0);
}
