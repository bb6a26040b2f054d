using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>The way of a page from one memory to the other.</summary>
public class PagePathTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData(GuestBacking.Memfd)]
    [InlineData(GuestBacking.Anonymous)]
    public void Neither_side_allocates_for_a_page(GuestBacking backing) => AssertNothingPerPage(backing, security: null);

    [Theory]
    [InlineData(GuestBacking.Memfd)]
    [InlineData(GuestBacking.Anonymous)]
    public void Nor_does_either_side_under_TLS(GuestBacking backing)
    {
        using var certificates = new TestCertificates();
        using MigrationSecurity security = certificates.Make("both");
        AssertNothingPerPage(backing, security);
    }

    [Fact]
    public void A_demanded_page_does_not_wait_for_a_background_that_nobody_reads()
    {
        const ulong Pages = 16 << 8;
        using GuestMemory memory = WrittenMemory(Pages, GuestBacking.Memfd);
        (PeerConnection backgroundHere, PeerConnection backgroundThere) = Connect();
        (PeerConnection demandHere, PeerConnection demandThere) = Connect();
        OutgoingPages outgoing = PageEnds.Outgoing(memory);
        Run(() => PageEnds.Drain(backgroundHere, outgoing));
        Run(() => PageEnds.Serve(demandHere, outgoing));
        Thread.Sleep(100);
        using var states = new PageStates(Pages);
        var requester = new DemandRequester(states, demandThere, failure => throw failure);
        requester.Request([Pages - 2]);
        demandThere.Patience = s_patience;
        (MessageType type, int bytes) = demandThere.ReceiveHeader();
        Assert.Equal(MessageType.Pages, type);
        Assert.Equal(PageBatch.Bytes + Page.Size, bytes);
        demandThere.Dispose();
        backgroundThere.Dispose();
        demandHere.Dispose();
        backgroundHere.Dispose();
    }

    [Fact]
    public void The_background_goes_on_behind_the_last_page_that_was_asked_for()
    {
        const ulong Pages = 16 << 8;
        using GuestMemory memory = WrittenMemory(Pages, GuestBacking.Memfd);
        (PeerConnection backgroundHere, PeerConnection backgroundThere) = Connect();
        (PeerConnection demandHere, PeerConnection demandThere) = Connect();
        OutgoingPages outgoing = PageEnds.Outgoing(memory);
        Run(() => PageEnds.Serve(demandHere, outgoing));
        using var states = new PageStates(Pages);
        new DemandRequester(states, demandThere, failure => throw failure).Request([1000]);
        demandThere.Patience = s_patience;
        _ = demandThere.ReceiveHeader();
        Run(() => PageEnds.Drain(backgroundHere, outgoing));
        backgroundThere.Patience = s_patience;
        (PageBatch batch, _) = PageEnds.NextBatch(backgroundThere, Pages);

        // The batch that the page is in, without the page itself, and what was before it.
        Assert.Equal(992UL, batch.First);
        Assert.Equal(uint.MaxValue & ~(1UL << 8), batch.Content | batch.Zeros);
        demandThere.Dispose();
        backgroundThere.Dispose();
        demandHere.Dispose();
        backgroundHere.Dispose();
    }

    [Fact]
    public void Patience_and_the_end_are_told_alike_under_TLS()
    {
        using var certificates = new TestCertificates();
        using MigrationSecurity security = certificates.Make("both");
        foreach (MigrationSecurity? secured in (MigrationSecurity?[])[null, security])
        {
            (PeerConnection here, PeerConnection there) = Connect(secured);
            there.Patience = TimeSpan.FromMilliseconds(100);
            SocketException late = Assert.Throws<SocketException>(() => there.ReceiveHeader());
            Assert.Contains("did not answer in time", MigrationSource.Describe(late), StringComparison.Ordinal);
            here.Dispose();
            there.Patience = s_patience;
            Exception end = Assert.ThrowsAny<Exception>(() => there.ReceiveHeader());

            // A side that closes before it has read all, of TLS's own messages for example, resets the connection.
            Assert.True(end is EndOfStreamException || (secured is not null && end is SocketException { SocketErrorCode: SocketError.ConnectionReset }), $"{end}");

            (here, there) = Connect(secured);
            here.Patience = TimeSpan.FromMilliseconds(100);
            late = Assert.Throws<SocketException>(() =>
            {
                // Nobody reads: the buffers between fill up.
                var content = new byte[1 << 20];
                for (int i = 0; i < 64; i++)
                {
                    here.SendFrame(content);
                }
            });
            Assert.Contains("did not answer in time", MigrationSource.Describe(late), StringComparison.Ordinal);
            there.Dispose();
            here.Dispose();
            _ = Assert.Throws<ObjectDisposedException>(() => here.SendFrame(new byte[1]));
            _ = Assert.Throws<ObjectDisposedException>(() => here.ReceiveHeader());

            (here, there) = Connect(secured);
            Task receiving = Task.Run(() => there.ReceiveHeader());
            Thread.Sleep(50);
            there.Shutdown();
            _ = Assert.Throws<EndOfStreamException>(() => receiving.WaitAsync(s_patience).GetAwaiter().GetResult());
            there.Dispose();
            here.Dispose();
        }
    }

    [Fact]
    public void A_deadline_holds_however_little_comes_at_a_time()
    {
        (PeerConnection here, PeerConnection there) = Connect();
        Run(() =>
        {
            while (true)
            {
                here.SendFrame([1]);
                Thread.Sleep(50);
            }
        });
        there.Deadline = TimeSpan.FromMilliseconds(500);
        long before = Environment.TickCount64;
        _ = Assert.Throws<SocketException>(() => there.ReceiveAll(new byte[1000]));
        Assert.InRange(Environment.TickCount64 - before, 400, 3000);
        there.Dispose();
        here.Dispose();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4120)]
    [InlineData(16 << 10)]
    [InlineData((16 << 10) + 1)]
    [InlineData(1 << 20)]
    public async Task Both_ways_carry_bytes_at_once_under_TLS(int size)
    {
        using var certificates = new TestCertificates();
        using MigrationSecurity security = certificates.Make("both");
        (PeerConnection here, PeerConnection there) = Connect(security);
        using (here)
        using (there)
        {
            here.Patience = s_patience;
            there.Patience = s_patience;
            byte[] content = Enumerable.Range(0, size).Select(i => (byte)(i * 7)).ToArray();
            await Task.WhenAll(
                Task.Run(() => SendMany(here)), Task.Run(() => SendMany(there)), Task.Run(() => ReceiveMany(here)), Task.Run(() => ReceiveMany(there)));

            void SendMany(PeerConnection connection)
            {
                for (int i = 0; i < 20; i++)
                {
                    connection.SendFrame(content);
                }
            }

            void ReceiveMany(PeerConnection connection)
            {
                var received = new byte[size];
                for (int i = 0; i < 20; i++)
                {
                    connection.ReceiveAll(received);
                    Assert.True(received.AsSpan().SequenceEqual(content));
                }
            }
        }
    }

    [Fact]
    public void A_page_asked_for_again_is_sent_once()
    {
        using GuestMemory memory = WrittenMemory(64, GuestBacking.Memfd);
        (PeerConnection here, PeerConnection there) = Connect();
        Run(() => PageEnds.Serve(here, PageEnds.Outgoing(memory)));
        using var states = new PageStates(64);
        new DemandRequester(states, there, failure => throw failure).Request([3, 3, 4, 3]);
        there.Patience = s_patience;
        foreach (ulong expected in (ulong[])[3, 4])
        {
            (PageBatch batch, byte[] content) = PageEnds.NextBatch(there, 64);
            Assert.Equal((expected, 1UL), (batch.First, batch.Content));
            Assert.Equal((byte)(expected + 1), content[^1]);
        }

        there.Patience = TimeSpan.FromMilliseconds(100);
        _ = Assert.Throws<SocketException>(() => there.ReceiveHeader());
        there.Dispose();
        here.Dispose();
    }

    private static void AssertNothingPerPage(GuestBacking backing, MigrationSecurity? security)
    {
        // What is made once per process is made now.
        _ = AllocatedFor(64, backing, security);

        // The buffers of both ends are the same for few pages and many. The runtime and TLS make something of their own once in a while, and the end of a connection is one
        // exception or another; what each page cost would be there every time: the least object per page would be 24 bytes times the pages.
        long most = long.MaxValue;
        for (int attempt = 0; attempt < 5 && most > 1000; attempt++)
        {
            (long source, long reader, long receiver) few = AllocatedFor(64, backing, security);
            (long source, long reader, long receiver) many = AllocatedFor(4096, backing, security);
            TestContext.Current.TestOutputHelper?.WriteLine($"{many.source - few.source} {many.reader - few.reader} {many.receiver - few.receiver}");
            most = Math.Max(Math.Abs(many.source - few.source), Math.Max(Math.Abs(many.reader - few.reader), Math.Abs(many.receiver - few.receiver)));
        }

        Assert.InRange(most, 0, 1000);
    }

    private static (long Source, long Reader, long Receiver) AllocatedFor(ulong pages, GuestBacking backing, MigrationSecurity? security)
    {
        using GuestMemory from = WrittenMemory(pages, backing);
        using GuestMemory to = GuestMemory.Create(pages * Page.Size, backing);
        (PeerConnection here, PeerConnection there) = Connect(security);
        long source = 0;
        long receiver = 0;
        OutgoingPages outgoing = PageEnds.Outgoing(from);
        Thread serving = Run(() => source = Allocated(() => PageEnds.Serve(here, outgoing)));
        using var engine = new FaultEngine(to);
        var asking = new DemandRequester(engine.States, there, failure => throw failure);
        var requester = new AllocationMeter(asking);
        engine.Start(requester);
        IncomingPages incoming = PageEnds.Incoming(engine, asking);
        Thread receiving = Run(() => receiver = Allocated(() => PageEnds.Receive(there, incoming, ConnectionRole.Demand)));
        var one = new byte[1];
        for (ulong page = 0; page < pages; page++)
        {
            to.ReadAsGuest(page * Page.Size, one);
            Assert.Equal((byte)(page + 1), one[0]);
        }

        there.Shutdown();
        Assert.True(serving.Join(s_patience) && receiving.Join(s_patience));
        there.Dispose();
        here.Dispose();
        return (source, requester.AllocatedBytes, receiver);
    }

    private static long Allocated(Action work)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        try
        {
            work();
        }
        catch (Exception end) when (end is EndOfStreamException or SocketException)
        {
            // The connection was ended.
        }

        return GC.GetAllocatedBytesForCurrentThread() - before;
    }

    private static GuestMemory WrittenMemory(ulong pages, GuestBacking backing)
    {
        GuestMemory memory = GuestMemory.Create(pages * Page.Size, backing);
        var content = new byte[Page.Size];
        for (ulong page = 0; page < pages; page++)
        {
            Array.Fill(content, (byte)(page + 1));
            memory.Write(page * Page.Size, content);
        }

        return memory;
    }

    private static (PeerConnection Here, PeerConnection There) Connect(MigrationSecurity? security = null)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Connect(listener.LocalEndpoint);
        var here = new PeerConnection(socket);
        var there = new PeerConnection(listener.AcceptSocket());
        if (security is not null)
        {
            Task securing = Task.Run(() => there.SecureAsDestination(security));
            here.SecureAsSource(security, "localhost");
            securing.Wait(s_patience);
        }

        return (here, there);
    }

    private static Thread Run(Action work)
    {
        var thread = new Thread(() =>
        {
            try
            {
                work();
            }
            catch (Exception end) when (end is EndOfStreamException or SocketException or ObjectDisposedException)
            {
                // The test has what it wanted.
            }
        })
        { IsBackground = true };
        thread.Start();
        return thread;
    }

    /// <summary>Measures the engine's reader thread from its first request to its last.</summary>
    private sealed class AllocationMeter(IPageSource source) : IPageSource
    {
        private long _first = -1;

        public long AllocatedBytes { get; private set; }

        public void Request(ReadOnlySpan<ulong> pages)
        {
            long now = GC.GetAllocatedBytesForCurrentThread();
            _first = _first < 0 ? now : _first;
            AllocatedBytes = now - _first;
            source.Request(pages);
        }
    }
}
