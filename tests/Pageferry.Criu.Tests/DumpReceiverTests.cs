using System.Net;

namespace Pageferry.Criu.Tests;

/// <summary>A dump that is received becomes images that the reader takes; one that makes no sense becomes none.</summary>
public sealed class DumpReceiverTests : IDisposable
{
    private const ulong First = 0x7f00_0000_0000;
    private const ulong Process = ((ulong)TestImages.Pid << 8) | 1;
    private const ulong SharedMemory = (12UL << 8) | 2;

    private readonly TestImages _images = new();
    private readonly DumpReceiver _receiver;

    public DumpReceiverTests() => _receiver = DumpReceiver.Start(_images.Folder, new IPEndPoint(IPAddress.Loopback, 0));

    public static TheoryData<PageServerForm> Forms => [PageServerForm.Header24, PageServerForm.Header32];

    public void Dispose()
    {
        _receiver.Dispose();
        _images.Dispose();
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public async Task A_dump_becomes_images_of_its_form(PageServerForm form)
    {
        using var dump = new PageServerClient(_receiver.EndPoint, form);
        dump.Send(new PageServerMessage(PageServerCommand.Parent, PagemapFlags.None, 0, 0, Process));
        Assert.Equal([0, 0, 0, 0], dump.Receive(4));
        Open(dump, Process);
        Add(dump, First, 2, PagemapFlags.Present | PagemapFlags.Lazy, content: 1);
        dump.Send(Entry(First + 0x2000, 4, PagemapFlags.Lazy));
        Add(dump, First + 0x10000, 3, PagemapFlags.Present, content: 3);
        Open(dump, SharedMemory);
        dump.Send(Entry(0, 1, PagemapFlags.Present) with { Id = SharedMemory });
        dump.SendBytes(new byte[4096]);
        dump.Send(new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0));
        Assert.Equal([0, 0, 0, 0], dump.Receive(4));
        Assert.Equal(new ReceivedDump(2, 6), await _receiver.Completion);

        Pagemap map = ImageSet.Open(_images.Folder).ReadPagemap(TestImages.Pid);
        Assert.Equal(form, map.Form);
        Assert.Equal(0x10001u, map.PagesId);
        Assert.Equal(
            [
                new PagemapEntry(First, 2, PagemapFlags.Present | PagemapFlags.Lazy, 0),
                new PagemapEntry(First + 0x2000, 4, PagemapFlags.Lazy, 2),
                new PagemapEntry(First + 0x10000, 3, PagemapFlags.Present, 2),
            ],
            map.Entries);
        using var pages = ProcessPages.Open(ImageSet.Open(_images.Folder), TestImages.Pid);
        Assert.True(pages.TryFind(First + 0x12000, out PageExtent extent));
        var content = new byte[4096];
        extent.File.Read(extent.FirstPage, content);
        Assert.Equal(5, content[17]);
        Assert.True(File.Exists(Path.Combine(_images.Folder, "pagemap-shmem-12.img")));
    }

    [Fact]
    public void Parent_images_are_told_of()
    {
        using var parent = new TestImages();
        parent.WritePagemap((First, 4, PagemapFlags.Present));
        _ = Directory.CreateSymbolicLink(Path.Combine(_images.Folder, "parent"), parent.Folder);
        using var dump = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32);
        dump.Send(new PageServerMessage(PageServerCommand.Parent, PagemapFlags.None, 0, 0, Process));
        Assert.Equal([1, 0, 0, 0], dump.Receive(4));
        dump.Send(new PageServerMessage(PageServerCommand.OpenWithAnswer, PagemapFlags.None, 0, 0, Process));
        Assert.Equal([1], dump.Receive(1));
    }

    [Theory]
    [InlineData("make no sense", First + 0x1000, 1, 9)]
    [InlineData("make no sense", First + 0x1000, 1, 5)]
    [InlineData("in any address space", First, 0, 4)]
    [InlineData("in any address space", First + 1, 1, 4)]
    [InlineData("in any address space", First, ulong.MaxValue, 4)]
    [InlineData("in any address space", ulong.MaxValue - 4095, 1, 4)]
    [InlineData("ascends", First - 0x1000, 1, 4)]
    public async Task A_dump_that_makes_no_sense_leaves_nothing(string reason, ulong address, ulong pages, uint flags)
    {
        using var dump = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32);
        Open(dump, Process);
        Add(dump, First, 1, PagemapFlags.Present, content: 1);
        dump.Send(Entry(address, pages, (PagemapFlags)flags));
        PageServerException refused = await Assert.ThrowsAsync<PageServerException>(() => _receiver.Completion);
        Assert.Contains(reason, refused.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(_images.Folder, $"pagemap-{TestImages.Pid}.img")));
        Assert.Empty(Directory.GetFiles(_images.Folder, "pages-*"));
    }

    [Fact]
    public async Task A_dump_that_breaks_off_leaves_nothing()
    {
        using (var dump = new PageServerClient(_receiver.EndPoint, PageServerForm.Header24))
        {
            Open(dump, Process);
            dump.Send(Entry(First, 100, PagemapFlags.Present));
            dump.SendBytes(new byte[5000]);
        }

        _ = await Assert.ThrowsAsync<PageServerException>(() => _receiver.Completion);
        Assert.Empty(Directory.GetFiles(_images.Folder, "pages-*"));
    }

    [Fact]
    public async Task Who_is_no_dump_is_sent_away_and_the_dump_is_still_awaited()
    {
        using (var stranger = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32))
        {
            stranger.Send(new PageServerMessage(PageServerCommand.Get, PagemapFlags.None, 1, First, TestImages.Pid));
            stranger.End();
            Assert.True(stranger.IsEnded());
        }

        using var dump = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32);
        Open(dump, Process);
        using (var second = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32))
        {
            second.Send(new PageServerMessage(PageServerCommand.OpenWithAnswer, PagemapFlags.None, 0, 0, Process));
            Assert.True(second.IsEnded());
        }

        Add(dump, First, 1, PagemapFlags.Present, content: 1);
        dump.Send(new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0));
        Assert.Equal(new ReceivedDump(1, 1), await _receiver.Completion);
    }

    [Theory]
    [InlineData("the end of a dump")]
    [InlineData("the end of a dump by force")]
    [InlineData("a web browser")]
    [InlineData("pages of nothing")]
    [InlineData("an id of neither kind")]
    [InlineData("an address to open")]
    public async Task What_a_stranger_says_ends_no_dump(string what)
    {
        using var dump = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32);
        using (var before = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32))
        {
            Say(before);
        }

        Open(dump, Process);
        Add(dump, First, 1, PagemapFlags.Present, content: 1);
        using (var meanwhile = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32))
        {
            Say(meanwhile);
        }

        Assert.False(_receiver.Completion.IsCompleted);
        dump.Send(new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0));
        Assert.Equal([0, 0, 0, 0], dump.Receive(4));
        Assert.Equal(new ReceivedDump(1, 1), await _receiver.Completion);

        void Say(PageServerClient stranger)
        {
            if (what == "a web browser")
            {
                stranger.SendBytes("GET / HTTP/1.1\r\nHost: 127.0.0.1:9999\r\nAccept: */*\r\n\r\n"u8);
            }
            else
            {
                stranger.Send(what switch
                {
                    "the end of a dump" => new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0),
                    "the end of a dump by force" => new PageServerMessage(PageServerCommand.ForceClose, PagemapFlags.None, 0, 0, 0),
                    "pages of nothing" => Entry(First, 1, PagemapFlags.Present),
                    "an id of neither kind" => new PageServerMessage(PageServerCommand.Open, PagemapFlags.None, 0, 0, 0x707),
                    _ => new PageServerMessage(PageServerCommand.Open, PagemapFlags.None, 0, First, Process),
                });
            }

            stranger.End();
            Assert.True(stranger.IsEnded());
        }
    }

    [Fact]
    public async Task Images_of_a_dump_before_stay_until_another_is_complete()
    {
        _images.WritePagemap((First, 4, PagemapFlags.Present));
        string pages = Path.Combine(_images.Folder, "pages-65537.img");
        await File.WriteAllTextAsync(pages, "before", TestContext.Current.CancellationToken);
        byte[] before = await File.ReadAllBytesAsync(Path.Combine(_images.Folder, $"pagemap-{TestImages.Pid}.img"), TestContext.Current.CancellationToken);
        using (var dump = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32))
        {
            Open(dump, Process);
            Add(dump, First, 1, PagemapFlags.Present, content: 1);
        }

        _ = await Assert.ThrowsAsync<PageServerException>(() => _receiver.Completion);
        Assert.Equal(before, await File.ReadAllBytesAsync(Path.Combine(_images.Folder, $"pagemap-{TestImages.Pid}.img"), TestContext.Current.CancellationToken));
        Assert.Equal("before", await File.ReadAllTextAsync(pages, TestContext.Current.CancellationToken));
        Assert.Empty(Directory.GetFiles(_images.Folder, "*.new"));
        using var again = DumpReceiver.Start(_images.Folder, new IPEndPoint(IPAddress.Loopback, 0));
        using var whole = new PageServerClient(again.EndPoint, PageServerForm.Header32);
        Open(whole, Process);
        Add(whole, First, 1, PagemapFlags.Present, content: 1);
        whole.Send(new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0));
        _ = await again.Completion;
        Assert.Equal(4096, new FileInfo(pages).Length);
    }

    [Fact]
    public void A_receiver_that_is_ended_removes_what_was_written()
    {
        using var dump = new PageServerClient(_receiver.EndPoint, PageServerForm.Header32);
        Open(dump, Process);
        Add(dump, First, 1, PagemapFlags.Present, content: 1);
        Assert.True(_receiver.HasBegun);
        _receiver.Dispose();
        Assert.Empty(Directory.GetFiles(_images.Folder, "*.new"));
    }

    [Fact]
    public void There_has_to_be_a_directory() =>
        Assert.Throws<DirectoryNotFoundException>(() => DumpReceiver.Start(Path.Combine(_images.Folder, "none"), new IPEndPoint(IPAddress.Loopback, 0)));

    private static PageServerMessage Entry(ulong address, ulong pages, PagemapFlags flags) => new(PageServerCommand.AddWithFlags, flags, pages, address, Process);

    private static void Open(PageServerClient dump, ulong id)
    {
        dump.Send(new PageServerMessage(PageServerCommand.OpenWithAnswer, PagemapFlags.None, 0, 0, id));
        Assert.Equal([0], dump.Receive(1));
    }

    /// <summary>Sends pages, each filled with a number that grows.</summary>
    private static void Add(PageServerClient dump, ulong address, int pages, PagemapFlags flags, byte content)
    {
        dump.Send(Entry(address, (ulong)pages, flags));
        dump.SendBytes([.. Enumerable.Range(0, pages).SelectMany(page => Enumerable.Repeat((byte)(content + page), 4096))]);
    }
}
