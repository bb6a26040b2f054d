using System.Buffers.Binary;
using System.Collections.Concurrent;

namespace Pageferry.Memory.Tests;

/// <summary>
/// A page source whose pages hold their number in every word. It answers on a thread of its own from when the test says so.
/// </summary>
internal sealed class TestPageSource : IPageSource, IDisposable
{
    /// <summary>Ends the answering thread.</summary>
    private const ulong Last = ulong.MaxValue;

    private readonly BlockingCollection<ulong> _requests = [];
    private readonly ConcurrentQueue<ulong> _seen = new();
    private Thread? _answering;

    public IReadOnlyCollection<ulong> Requested => _seen;

    public static ulong WordOf(ulong page) => (page * 0x9E37_79B9_7F4A_7C15) | 1;

    public static void Fill(ulong firstPage, Span<byte> content)
    {
        for (int at = 0; at < content.Length; at += sizeof(ulong))
        {
            BinaryPrimitives.WriteUInt64LittleEndian(content[at..], WordOf(firstPage + (ulong)(at / Page.Size)));
        }
    }

    public static void Deliver(PageLane lane, ulong page, int count)
    {
        while (count > 0)
        {
            int begun = lane.Begin(page, count, out Span<byte> buffer);
            if (begun > 0)
            {
                Fill(page, buffer);
                lane.Complete();
            }

            page += (ulong)Math.Abs(begun);
            count -= Math.Abs(begun);
        }
    }

    public void Request(ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            _seen.Enqueue(page);
            _requests.Add(page);
        }
    }

    public void AnswerThrough(FaultEngine engine)
    {
        _answering = new Thread(() =>
        {
            using PageLane lane = engine.CreateLane();
            foreach (ulong page in _requests.GetConsumingEnumerable().TakeWhile(page => page != Last))
            {
                Deliver(lane, page, 1);
            }
        });
        _answering.Start();
    }

    /// <summary>Answers no more: from now on the engine's memory may be given back.</summary>
    public void Stop()
    {
        _requests.Add(Last);
        _answering?.Join();
    }

    public void Dispose()
    {
        Stop();
        _requests.Dispose();
    }
}
