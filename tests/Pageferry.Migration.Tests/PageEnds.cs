using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>The product's own ends of page connections, without a session around them, as they are after a switchover without pre-copy.</summary>
internal static class PageEnds
{
    internal const uint Generation = 1;

    internal static OutgoingPages Outgoing(GuestMemory memory)
    {
        var pages = new OutgoingPages(memory);
        pages.Pending.AddRun(0, memory.PageCount);
        return pages;
    }

    internal static void Serve(PeerConnection connection, OutgoingPages pages)
    {
        var server = new DemandServer(connection, pages, new MigrationCounters());
        server.SwitchOver(Generation);
        server.Serve();
    }

    internal static void Drain(PeerConnection connection, OutgoingPages pages, MigrationCompression compression = MigrationCompression.None)
    {
        using var sender = new BackgroundSender(connection, pages, 0, 1, compression, new MigrationCounters());
        sender.Drain(Generation);
    }

    internal static IncomingPages Incoming(FaultEngine engine, DemandRequester requester, bool switchedOver = true)
    {
        var pages = new IncomingPages(engine, new MigrationCounters(), requester, 1, digests: null);
        if (switchedOver)
        {
            pages.SwitchOver(Generation);
        }

        return pages;
    }

    internal static void Receive(PeerConnection connection, IncomingPages pages, ConnectionRole role) => new PageReceiver(connection, pages, role).ReceiveAll();

    /// <summary>The next frame of pages on a connection, and its payload.</summary>
    internal static (PageBatch Batch, byte[] Payload) NextBatch(PeerConnection connection, ulong pageCount)
    {
        (MessageType type, int bytes) = connection.ReceiveHeader();
        Assert.Equal(MessageType.Pages, type);
        var said = new byte[PageBatch.Bytes];
        connection.ReceiveAll(said);
        var payload = new byte[bytes - said.Length];
        connection.ReceiveAll(payload);
        return (PageBatch.Read(said, payload.Length, pageCount), payload);
    }
}
