using System.Collections.Concurrent;
using Pageferry.Memory;

namespace Pageferry.GcHazard;

/// <summary>Answers each page after a garbage collection has begun.</summary>
internal sealed class LateSource(CollectionDuringFault collection) : IPageSource
{
    /// <summary>What a vCPU that runs into the page does: hlt.</summary>
    private const byte Halt = 0xF4;

    private readonly BlockingCollection<ulong> _requests = [];

    public void Request(ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            _requests.Add(page);
        }
    }

    public void AnswerThrough(FaultEngine engine)
    {
        var answering = new Thread(() =>
        {
            PageLane lane = engine.CreateLane();
            foreach (ulong page in _requests.GetConsumingEnumerable())
            {
                collection.Begin();
                if (lane.Begin(page, 1, out Span<byte> buffer) > 0)
                {
                    buffer.Fill(Halt);
                    lane.Complete();
                }
            }
        })
        {
            IsBackground = true,
        };
        answering.Start();
    }
}
