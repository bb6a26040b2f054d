using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>A page is told as what changed since it was sent last, never since it was sent before that.</summary>
public sealed class DeltaBaseTests : IDisposable
{
    private const ulong Pages = 64;

    private readonly GuestMemory _memory = GuestMemory.Create(Pages * Page.Size);
    private readonly PeerConnection _here;
    private readonly PeerConnection _there;

    public DeltaBaseTests()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Connect(listener.LocalEndpoint);
        _here = new PeerConnection(socket);
        _there = new PeerConnection(listener.AcceptSocket()) { Patience = TimeSpan.FromSeconds(30) };
    }

    public void Dispose()
    {
        _here.Dispose();
        _there.Dispose();
        _memory.Dispose();
    }

    [Fact]
    public void What_went_whole_meanwhile_is_no_base_any_more()
    {
        var choice = new CompressionChoice(MigrationCompression.None);
        using var writer = new BatchWriter(_here, choice, new MigrationCounters());
        using var sent = new SentContent((int)Pages * Page.Size, senders: 1);
        choice.Learn(PageEncoding.None, 1000, 1000, 0, 1e9);
        Assert.False(IsDelta(1));
        Assert.True(IsDelta(2));
        for (int i = 0; i < 200; i++)
        {
            // A fast link: telling what changed does not pay.
            choice.Learn(PageEncoding.None, 1000, 1000, 0, 0);
        }

        Assert.False(IsDelta(3));
        choice.Learn(PageEncoding.None, 1000, 1000, 0, 1e9);
        Assert.False(IsDelta(4));
        Assert.True(IsDelta(5));

        bool IsDelta(byte version)
        {
            Span<byte> content = writer.Content[..Page.Size];
            content.Fill(7);
            content[version] = version;
            writer.Send(0, 1, 2, sent, damaged: null);
            return PageEnds.NextBatch(_there, Pages).Batch.Deltas != 0;
        }
    }

    [Fact]
    public void Nor_is_what_a_page_was_before_its_content_was_given_back()
    {
        OutgoingPages pages = new(_memory);
        using var sender = new BackgroundSender(_here, pages, 0, 1, MigrationCompression.Lz4, new MigrationCounters());
        var content = new byte[Page.Size];
        new Random(1).NextBytes(content);
        _memory.Write(0, content);
        Assert.Equal(0UL, Send().Deltas);
        _memory.Write(0, [1]);
        Assert.Equal(1UL, Send().Deltas);

        _memory.Remove(0, Page.Size);
        _ = pages.Pending.Add(0);
        sender.SendRound(2, tracker: null, long.MaxValue);
        Assert.Equal(MessageType.ZeroPages, _there.ReceiveHeader().Type);
        _there.ReceiveAll(new byte[ZeroRun.Bytes]);
        TakeBarrier();
        _memory.Write(0, content);
        Assert.Equal(0UL, Send().Deltas);

        PageBatch Send()
        {
            _ = pages.Pending.Add(0);
            sender.SendRound(2, tracker: null, long.MaxValue);
            PageBatch batch = PageEnds.NextBatch(_there, Pages).Batch;
            TakeBarrier();
            return batch;
        }

        void TakeBarrier()
        {
            Assert.Equal(MessageType.Barrier, _there.ReceiveHeader().Type);
            _there.ReceivePayload(MessageType.Barrier, new byte[sizeof(uint)]);
        }
    }
}
