using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Pageferry.Criu.Tests;

/// <summary>The lazy page server answers what it can, in order, and whatever else comes disturbs nobody.</summary>
public sealed class PageServerTests : IDisposable
{
    private const ulong First = 0x7f00_0000_0000;

    private readonly TestImages _images = new();
    private readonly PageServer _server;

    public PageServerTests()
    {
        _images.WritePagemap(
            (First, 5, PagemapFlags.Present | PagemapFlags.Lazy),
            (First + 0x20000, 300, PagemapFlags.Present),
            (First + 0x20000 + (300 * 0x1000), 2, PagemapFlags.Present));
        _images.WritePages(307);
        _server = PageServer.Start(_images.Folder, new IPEndPoint(IPAddress.Loopback, 0));
    }

    public static TheoryData<PageServerForm> Forms => [PageServerForm.Header24, PageServerForm.Header32];

    public void Dispose()
    {
        _server.Dispose();
        _images.Dispose();
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public void Pages_come_in_the_form_and_the_order_of_the_requests(PageServerForm form)
    {
        using var client = new PageServerClient(_server.EndPoint, form);
        client.Send(Get(First + 0x20000, 300), Get(First + 0x1000, 2), Get(First + 0x4000, 9));
        AssertPages(client, First + 0x20000, 5, 300);
        AssertPages(client, First + 0x1000, 1, 2);

        // Of more pages than lie there together come those that do.
        AssertPages(client, First + 0x4000, 4, 1);
        client.Send(new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0));
        Assert.Equal([0, 0, 0, 0], client.Receive(4));
        Assert.Equal(303UL, _server.PagesServed);
    }

    [Fact]
    public void Images_whose_pages_were_left_with_the_dump_are_refused()
    {
        using var images = new TestImages();
        images.WritePagemap((First, 2, PagemapFlags.Present), (First + 0x10000, 3, PagemapFlags.Lazy));
        images.WritePages(2);
        images.Write($"mm-{TestImages.Pid}.img", ImageFile.MM_MAGIC, [TestImages.Memory((First, First + 0x20000))]);
        ImageException served = Assert.Throws<ImageException>(() => PageServer.Start(images.Folder, new IPEndPoint(IPAddress.Loopback, 0)));
        Assert.Contains("3 pages at 0x7f0000010000 that were left with the dump", served.Message, StringComparison.Ordinal);
        ImageException restored = Assert.Throws<ImageException>(() => LazyRestore.Listen(images.Folder, images.Folder, pageServer: null, BackgroundFill.Sequential));
        Assert.Contains("--page-server, --address and --port", restored.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void More_pages_than_any_process_has_are_refused_before_there_is_one()
    {
        const ulong Many = 1UL << 43;
        using var images = new TestImages();
        images.WritePagemap((0x10000, Many, PagemapFlags.Lazy));
        images.Write($"mm-{TestImages.Pid}.img", ImageFile.MM_MAGIC, [TestImages.Memory((0x10000, 0x10000 + (Many * 4096)))]);
        ImageException refused = Assert.Throws<ImageException>(() => LazyRestore.Listen(images.Folder, images.Folder, _server.EndPoint, BackgroundFill.Sequential));
        Assert.Contains($"tells of {Many} pages that come later", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public void A_restore_that_needs_no_page_ends_well(PageServerForm form)
    {
        using var client = new PageServerClient(_server.EndPoint, form);
        client.Send(new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0));
        Assert.Equal([0, 0, 0, 0], client.Receive(4));
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public void What_is_not_there_is_answered_with_no_page(PageServerForm form)
    {
        using var client = new PageServerClient(_server.EndPoint, form);
        PageServerMessage[] requests = [Get(First + 0x5000, 1), Get(First + 0x10000, 1), Get(First - 0x1000, 1), Get(First, 1) with { Id = 4711 }, Get(0x10000, uint.MaxValue)];
        client.Send(requests);
        foreach (PageServerMessage request in requests)
        {
            Assert.Equal(request with { Command = PageServerCommand.AddWithFlags, Flags = PagemapFlags.Present, Pages = 0 }, client.ReceiveHeader());
        }

        client.Send(Get(First, 1));
        AssertPages(client, First, 0, 1);
    }

    [Fact]
    public void A_huge_request_is_answered_with_what_there_is()
    {
        using var client = new PageServerClient(_server.EndPoint, PageServerForm.Header32);
        client.Send(Get(First, 1), Get(First + 0x20000, ulong.MaxValue));
        AssertPages(client, First, 0, 1);
        AssertPages(client, First + 0x20000, 5, 302);
    }

    [Fact]
    public void What_makes_no_sense_ends_the_connection_and_no_other()
    {
        using var good = new PageServerClient(_server.EndPoint, PageServerForm.Header32);
        good.Send(Get(First, 1));
        AssertPages(good, First, 0, 1);
        PageServerMessage[] senseless =
        [
            Get(First, 0),
            Get(First + 1, 1),
            Get(First, 1) with { Command = PageServerCommand.AddWithFlags },
            Get(First, 1) with { Command = (PageServerCommand)99 },
            new(PageServerCommand.OpenWithAnswer, PagemapFlags.None, 0, 0, 0x701),
            new((PageServerCommand)0x4547, PagemapFlags.None, 0x0a0d302e312f5054, 0x6c61636f6c203a74, 0x0a0d74736f68),
        ];
        foreach (PageServerMessage message in senseless)
        {
            using var client = new PageServerClient(_server.EndPoint, PageServerForm.Header32);
            client.Send(message);
            Assert.True(client.IsEnded(), $"{message}");
        }

        good.Send(Get(First, 1));
        AssertPages(good, First, 0, 1);
    }

    [Fact]
    public void Strangers_who_say_nothing_or_half_of_something_make_room_for_a_restore()
    {
        using var restore = new PageServerClient(_server.EndPoint, PageServerForm.Header24);
        restore.Send(Get(First, 1));
        AssertPages(restore, First, 0, 1);
        var strangers = new List<Socket>();
        try
        {
            for (int i = 0; i < 3 * PageServerListener.MostConnections; i++)
            {
                var stranger = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                strangers.Add(stranger);
                stranger.Connect(_server.EndPoint);
                _ = stranger.Send([7, 0, 0]);
            }

            using var another = new PageServerClient(_server.EndPoint, PageServerForm.Header32);
            another.Send(Get(First, 2));
            AssertPages(another, First, 0, 2);
            restore.Send(Get(First, 3));
            AssertPages(restore, First, 0, 3);
        }
        finally
        {
            strangers.ForEach(stranger => stranger.Dispose());
        }
    }

    [Fact]
    public void A_client_that_takes_nothing_does_not_keep_others_waiting()
    {
        using var slow = new PageServerClient(_server.EndPoint, PageServerForm.Header32);
        PageServerMessage[] many = [.. Enumerable.Repeat(Get(First + 0x20000, 300), 50)];
        slow.Send(many);
        using var quick = new PageServerClient(_server.EndPoint, PageServerForm.Header32);
        var clock = Stopwatch.StartNew();
        quick.Send(Get(First, 1));
        AssertPages(quick, First, 0, 1);
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(10), $"It took {clock.Elapsed}.");
        foreach (PageServerMessage _ in many)
        {
            AssertPages(slow, First + 0x20000, 5, 300);
        }
    }

    [Fact]
    public void A_port_in_use_is_refused()
    {
        SocketException refused = Assert.Throws<SocketException>(() => PageServer.Start(_images.Folder, _server.EndPoint));
        Assert.Equal(SocketError.AddressAlreadyInUse, refused.SocketErrorCode);
    }

    private static PageServerMessage Get(ulong address, ulong pages) => new(PageServerCommand.Get, PagemapFlags.None, pages, address, TestImages.Pid);

    /// <summary>Pages have their place in the pages image as content.</summary>
    private static void AssertPages(PageServerClient client, ulong address, int firstPage, int count)
    {
        Assert.Equal(new PageServerMessage(PageServerCommand.AddWithFlags, PagemapFlags.Present, (ulong)count, address, TestImages.Pid), client.ReceiveHeader());
        byte[] content = client.Receive(count * 4096);
        for (int page = 0; page < count; page++)
        {
            Assert.False(content.AsSpan(page * 4096, 4096).ContainsAnyExcept((byte)(firstPage + page)), $"page {page}");
        }
    }
}
