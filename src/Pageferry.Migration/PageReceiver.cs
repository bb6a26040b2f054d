using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The destination's end of one page connection: from the socket into guest memory, and placed.</summary>
internal sealed class PageReceiver(PeerConnection connection, FaultEngine engine, MigrationCounters counters, ConnectionRole role)
{
    /// <summary>64 KiB are received, then placed: whoever waits for a page of a run does not wait for the whole run.</summary>
    private const ulong PagesPerPlacing = 16;

    private readonly byte[] _run = new byte[PageFrames.RunBytes];

    /// <summary>Receives until the source says that all is sent, or the connection ends.</summary>
    internal void ReceiveAll()
    {
        using PageLane lane = engine.CreateLane();
        while (true)
        {
            (MessageType type, int bytes) = connection.ReceiveHeader();
            switch (type)
            {
                case MessageType.Pages when bytes >= PageFrames.RunBytes:
                    ReceivePages(lane, bytes);
                    break;

                case MessageType.ZeroPages when bytes == PageFrames.RunBytes:
                    ReceiveZeroPages(lane, bytes);
                    break;

                case MessageType.BackgroundDone when role == ConnectionRole.Background && bytes == 0:
                    return;

                default:
                    throw new ProtocolException($"The source sent a frame {type} of {bytes} bytes on the {role} connection.");
            }
        }
    }

    private void ReceivePages(PageLane lane, int bytes)
    {
        connection.ReceiveAll(_run);
        (ulong page, ulong count) = PageFrames.ReadRun(MessageType.Pages, _run, bytes, engine.States.PageCount);
        for (ulong done = 0; done < count;)
        {
            int begun = lane.Begin(page + done, (int)Math.Min(PagesPerPlacing, count - done), out Span<byte> buffer);
            connection.ReceiveAll(buffer);
            if (begun > 0)
            {
                lane.Complete();
            }
            else if (engine.Statistics.RemovedPages == 0)
            {
                // What is not wanted was removed by the guest, or was sent before: which no source may.
                throw new ProtocolException($"The source sent page {page + done} twice.");
            }

            done += (ulong)Math.Abs(begun);
        }

        Count((long)count, bytes);
    }

    private void ReceiveZeroPages(PageLane lane, int bytes)
    {
        connection.ReceiveAll(_run);
        (ulong page, ulong count) = PageFrames.ReadRun(MessageType.ZeroPages, _run, bytes, engine.States.PageCount);
        _ = lane.Zero(page, count);
        counters.AddZero((long)count);
        Count(0, bytes);
    }

    private void Count(long pages, int payloadBytes)
    {
        long bytes = PeerConnection.HeaderBytes + payloadBytes;
        if (role == ConnectionRole.Demand)
        {
            counters.AddDemand(pages, bytes);
        }
        else
        {
            counters.AddBackground(pages, bytes);
        }
    }
}
