using CsCheck;

namespace Pageferry.Criu.Tests;

/// <summary>Images are read as they were written, and what makes no sense is refused with the file's name.</summary>
public sealed class ImageTests : IDisposable
{
    private const PagemapFlags Lazy = PagemapFlags.Lazy | PagemapFlags.Present;

    private readonly TestImages _files = new();

    private ImageSet Images => ImageSet.Open(_files.Folder);

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Both_ways_of_counting_pages_are_read_and_tell_the_page_servers_form()
    {
        _files.WritePagemap(TestImages.Message((1, 0x10000), (2, 3), (4, 6)));
        Assert.Equal(PageServerForm.Header24, Images.ReadPagemap(TestImages.Pid).Form);
        Assert.Equal(new PagemapEntry(0x10000, 3, Lazy, 0), Assert.Single(Images.ReadPagemap(TestImages.Pid).Entries));
        _files.WritePagemap(TestImages.Message((1, 0x10000), (2, 0), (4, 6), (5, 1UL << 33)));
        Assert.Equal(PageServerForm.Header32, Images.ReadPagemap(TestImages.Pid).Form);
        Assert.Equal(1UL << 33, Assert.Single(Images.ReadPagemap(TestImages.Pid).Entries).PageCount);
    }

    [Fact]
    public void A_page_is_found_in_the_pages_image_where_the_present_ones_before_it_put_it()
    {
        _files.WritePagemap((0x10000, 2, PagemapFlags.Present), (0x20000, 5, PagemapFlags.Lazy), (0x30000, 3, Lazy));
        _files.WritePages(5);
        using var pages = ProcessPages.Open(Images, TestImages.Pid);
        Assert.False(pages.TryFind(0xf000, out _));
        Assert.False(pages.TryFind(0x20000, out _));
        Assert.False(pages.TryFind(0x33000, out _));
        Assert.True(pages.TryFind(0x31000, out PageExtent extent));
        Assert.Equal((0x31000UL, 2UL, 3UL), (extent.Address, extent.PageCount, extent.FirstPage));
        var content = new byte[2 * 4096];
        extent.File.Read(extent.FirstPage, content);
        Assert.Equal((3, 4), (content[0], content[4096]));
    }

    [Fact]
    public void A_page_in_parent_images_is_found_there_through_any_number_of_them()
    {
        using var grandparent = new TestImages();
        using var parent = new TestImages();
        grandparent.WritePagemap((0x10000, 8, Lazy));
        grandparent.WritePages(8, first: 100);
        parent.WritePagemap((0x10000, 3, PagemapFlags.Parent | PagemapFlags.Lazy), (0x13000, 2, Lazy), (0x15000, 3, PagemapFlags.Parent | PagemapFlags.Lazy));
        parent.WritePages(2, first: 50);
        _files.WritePagemap((0x11000, 4, PagemapFlags.Parent | PagemapFlags.Lazy), (0x15000, 1, Lazy), (0x16000, 1, PagemapFlags.Parent | PagemapFlags.Lazy));
        _files.WritePages(1);
        _ = Directory.CreateSymbolicLink(Path.Combine(_files.Folder, "parent"), parent.Folder);
        _ = Directory.CreateSymbolicLink(Path.Combine(parent.Folder, "parent"), grandparent.Folder);

        using var pages = ProcessPages.Open(Images, TestImages.Pid);
        var found = new List<byte>();
        var content = new byte[4096];
        for (ulong address = 0x11000; pages.TryFind(address, out PageExtent extent); address += 4096)
        {
            extent.File.Read(extent.FirstPage, content);
            found.Add(content[0]);
        }

        Assert.Equal([101, 102, 50, 51, 0, 106], found);
    }

    [Fact]
    public void Parents_that_lead_in_a_circle_or_lack_a_page_are_refused()
    {
        _files.WritePagemap((0x10000, 1, PagemapFlags.Parent));
        Assert.Contains("'parent'", Refused(() => ProcessPages.Open(Images, TestImages.Pid)), StringComparison.Ordinal);
        _ = Directory.CreateSymbolicLink(Path.Combine(_files.Folder, "parent"), _files.Folder);
        Assert.Contains("circle", Refused(() => ProcessPages.Open(Images, TestImages.Pid)), StringComparison.Ordinal);

        Directory.Delete(Path.Combine(_files.Folder, "parent"));
        using var parent = new TestImages();
        parent.WritePagemap((0x11000, 1, Lazy));
        parent.WritePages(1);
        _ = Directory.CreateSymbolicLink(Path.Combine(_files.Folder, "parent"), parent.Folder);
        Assert.Contains("0x10000", Refused(() => ProcessPages.Open(Images, TestImages.Pid)), StringComparison.Ordinal);
    }

    public static TheoryData<string, (int, ulong)[][]> BadPagemaps => new()
    {
        { "overlap", [[(1, 0x10000), (5, 3)], [(1, 0x12000), (5, 1)]] },
        { "descend", [[(1, 0x10000), (5, 3)], [(1, 0x1000), (5, 1)]] },
        { "another version", [[(1, 0x10000), (5, 3)], [(1, 0x20000), (2, 1)]] },
        { "how many", [[(1, 0x10000)]] },
        { "twice", [[(1, 0x10000), (2, 1), (5, 1)]] },
        { "no process", [[(1, 0x10001), (5, 1)]] },
        { "no process", [[(1, 0x10000), (5, ulong.MaxValue)]] },
        { "no process", [[(1, 0xffff800000000000), (5, 1)]] },
        { "no process", [[(1, (1UL << 56) - 0x2000), (5, 2)]] },
        { "flags", [[(1, 0x10000), (4, 8), (5, 1)]] },
        { "flags", [[(1, 0x10000), (4, 5), (5, 1)]] },
        { "flags", [[(1, 0x10000), (3, 1), (4, 4), (5, 1)]] },
    };

    [Theory]
    [MemberData(nameof(BadPagemaps))]
    public void A_pagemap_that_makes_no_sense_is_refused(string says, (int, ulong)[][] entries)
    {
        _files.WritePagemap([.. entries.Select(entry => TestImages.Message(entry))]);
        string message = Refused(() => Images.ReadPagemap(TestImages.Pid));
        Assert.Contains(says, message, StringComparison.Ordinal);
        Assert.Contains($"pagemap-{TestImages.Pid}.img", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_pages_image_that_is_missing_or_shorter_than_its_pagemap_says_is_refused()
    {
        _files.WritePagemap((0x10000, 3, Lazy));
        Assert.Contains("pages-1.img", Refused(() => ProcessPages.Open(Images, TestImages.Pid)), StringComparison.Ordinal);
        _files.WritePages(2);
        Assert.Contains("has 2 pages", Refused(() => ProcessPages.Open(Images, TestImages.Pid)), StringComparison.Ordinal);
        _files.WritePages(3);
        using var pages = ProcessPages.Open(Images, TestImages.Pid);
        Assert.True(pages.TryFind(0x10000, out PageExtent extent));
        _files.WritePages(2);
        Assert.Contains("ends at byte 8192", Refused(() => extent.File.Read(0, new byte[3 * 4096])), StringComparison.Ordinal);
    }

    [Fact]
    public void The_tree_is_read_and_one_that_is_none_refused()
    {
        _files.Write("pstree.img", ImageFile.PSTREE_MAGIC, [TestImages.Message((1, 7), (2, 0)), TestImages.Message((1, 9), (2, 7), (3, 9))]);
        Assert.Equal([new ProcessEntry(7, 0), new ProcessEntry(9, 7)], Images.ReadProcesses());
        foreach (byte[][] bad in new byte[][][] { [], [TestImages.Message((2, 0))], [TestImages.Message((1, 7)), TestImages.Message((1, 7))], [TestImages.Message((1, 9), (2, 7))], [TestImages.Message((1, 9), (2, 9))] })
        {
            _files.Write("pstree.img", ImageFile.PSTREE_MAGIC, bad);
            Assert.Contains("pstree.img", Refused(() => Images.ReadProcesses()), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_mappings_are_read_and_those_that_cant_be_refused()
    {
        WriteMemory((0x1000, 0x3000), (0x3000, 0x4000), (0xffffffffff600000, 0xffffffffff601000));
        Assert.Equal([(0x1000UL, 0x3000UL), (0x3000, 0x4000), (0xffffffffff600000, 0xffffffffff601000)], Images.ReadMemoryMap(TestImages.Pid).Vmas.Select(vma => (vma.Start, vma.End)));
        foreach ((ulong, ulong)[] bad in new (ulong, ulong)[][] { [(0x3000, 0x3000)], [(0x3000, 0x1000)], [(0x1000, 0x3000), (0x2000, 0x4000)], [(0x1001, 0x3000)], [(0, 1UL << 57)], [(0xffffffffff600000, 0x1000)] })
        {
            WriteMemory(bad);
            Assert.Contains($"mm-{TestImages.Pid}.img", Refused(() => Images.ReadMemoryMap(TestImages.Pid)), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_folder_without_images_and_images_that_were_swapped_are_refused()
    {
        Assert.Contains("inventory.img", Refused(() => ImageSet.Open("/proc/self")), StringComparison.Ordinal);
        File.Copy(Path.Combine(_files.Folder, "pstree.img"), Path.Combine(_files.Folder, $"pagemap-{TestImages.Pid}.img"));
        Assert.Contains("no such image", Refused(() => Images.ReadPagemap(TestImages.Pid)), StringComparison.Ordinal);
        _files.Write("inventory.img", ImageFile.INVENTORY_MAGIC, [TestImages.Message((1, 9))], isFirst: true);
        Assert.Contains("version 9", Refused(() => Images), StringComparison.Ordinal);
    }

    /// <summary>Cut short anywhere, a pagemap is one of fewer entries or is refused.</summary>
    [Fact]
    public void A_pagemap_that_was_cut_is_refused_or_shorter()
    {
        byte[] whole = TestImages.Image(ImageFile.PAGEMAP_MAGIC, [TestImages.Message((1, 1)), .. Enumerable.Range(1, 20).Select(i => TestImages.Message((1, (ulong)i << 16), (5, 1), (4, 6)))]);
        Gen.Int[0, whole.Length - 1].Sample(length =>
        {
            try
            {
                return Pagemap.Read(new ImageFile("cut", whole[..length], ImageFile.PAGEMAP_MAGIC)).Entries.Count < 20;
            }
            catch (ImageException)
            {
                return true;
            }
        });
    }

    private static string Refused(Func<object> read) => Assert.Throws<ImageException>(read).Message;

    private static string Refused(Action read) => Assert.Throws<ImageException>(read).Message;

    private void WriteMemory(params (ulong Start, ulong End)[] vmas) => _files.Write($"mm-{TestImages.Pid}.img", ImageFile.MM_MAGIC, [TestImages.Memory(vmas)]);
}
