using Pageferry.Linux;

namespace Pageferry.Memory.Tests;

public class GuestMemoryTests
{
    [Fact]
    public void A_guest_memfd_comes_from_kvm_and_is_as_long_as_its_regions()
    {
        Assert.Contains("made by KVM", Assert.Throws<ArgumentException>(() => GuestMemory.Create(Page.Size, GuestBacking.GuestMemfd)).Message, StringComparison.Ordinal);
        var file = Linux.MemoryFile.Create("short", Page.Size);
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => GuestMemory.Create([new(0, 2 * Page.Size)], file));
        Assert.True(file.Descriptor.IsClosed);
    }

    public static TheoryData<GuestBacking> Backings => new(GuestBacking.Memfd, GuestBacking.Anonymous);

    [Theory]
    [MemberData(nameof(Backings))]
    public void Host_and_guest_see_the_same_bytes(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(16 * Page.Size, backing);
        byte[] written = [1, 2, 3, 4, 5];
        memory.Write(Page.Size - 2, written);
        var read = new byte[written.Length];
        memory.ReadAsGuest(Page.Size - 2, read);
        Assert.Equal(written, read);
        memory.WriteAsGuest(9 * Page.Size, [42]);
        memory.Read(9 * Page.Size, read.AsSpan(0, 1));
        Assert.Equal(42, read[0]);
    }

    [Fact]
    public void A_memfds_pages_are_read_and_written_without_being_mapped()
    {
        const int Pages = 8;
        using var memory = GuestMemory.Create(64 * Page.Size);
        using var map = PageMap.Open(Environment.ProcessId);
        byte[] written = new byte[Pages * Page.Size];
        new Random(1).NextBytes(written);
        memory.WritePages(4, written);
        byte[] read = new byte[written.Length];
        memory.ReadPages(4, read);
        Assert.Equal(written, read);
        Assert.Equal(0, CountMapped());
        Assert.Equal(written[0], memory.HostViewOfPages(4, 1)[0]);
        Assert.Equal(1, CountMapped());

        int CountMapped()
        {
            MappedRegion view = memory.SecondView!;
            return map.Scan(view.Address, view.Address + view.Length, new PageFilter { All = PageCategories.Present }, PageCategories.None, new PageRange[2], out _);
        }
    }

    [Fact]
    public void Pages_are_numbered_densely_over_the_regions()
    {
        using var memory = GuestMemory.Create([new GuestRegion(0, 2 * Page.Size), new GuestRegion(1UL << 32, 3 * Page.Size)]);
        Assert.Equal(5UL, memory.PageCount);
        Assert.Equal(2UL, memory.PageAt(1UL << 32));
        Assert.Equal((1UL << 32) + (2 * Page.Size), memory.GpaOf(4));
        Assert.Equal(Page.Size, (int)memory.GpaOf(1));
        Assert.Equal(2UL * Page.Size, memory.GuestViewAddress(1UL << 32) - memory.GuestViewAddress(0));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.PageAt(2 * Page.Size));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.GpaOf(5));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Write(Page.Size, new byte[Page.Size + 1]));
    }

    public static TheoryData<ulong, ulong> BadRegions => new()
    {
        { 0, 0 },
        { 0, 1 },
        { 1, Page.Size },
        { 0, Page.Size + 1 },
        { ulong.MaxValue - Page.Size + 1, 2 * Page.Size },
    };

    [Theory]
    [MemberData(nameof(BadRegions))]
    public void Regions_that_break_a_rule_are_refused(ulong gpa, ulong length) =>
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([new GuestRegion(gpa, length)]));

    [Fact]
    public void Regions_that_overlap_or_descend_are_refused()
    {
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([new GuestRegion(0, 2 * Page.Size), new GuestRegion(Page.Size, Page.Size)]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create([new GuestRegion(4 * Page.Size, Page.Size), new GuestRegion(0, Page.Size)]));
        Assert.Throws<ArgumentException>(() => GuestMemory.Create(Enumerable.Range(0, 65).Select(i => new GuestRegion((ulong)i * Page.Size, Page.Size)).ToArray()));
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void More_memory_than_the_host_can_map_is_an_error_with_its_name(GuestBacking backing)
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => GuestMemory.Create(1UL << 60, backing));
        Assert.Contains(failure.Errno.ToString(), failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Unwritten_memory_is_found_without_populating_it()
    {
        using var memory = GuestMemory.Create(100 * Page.Size);
        memory.Write(40 * Page.Size, [1]);
        memory.Write(41 * Page.Size, [1]);
        Assert.Equal(40UL, memory.NextContent(0));
        Assert.Equal(42UL, memory.NextHole(40));
        Assert.Equal(100UL, memory.NextContent(42));
        Assert.Equal(100UL, memory.NextContent(100));
        Assert.Equal(100UL, memory.NextHole(100));
        Assert.Equal(40UL, memory.NextContent(0));
    }

    [Fact]
    public void Anonymous_memory_has_no_host_view()
    {
        using var memory = GuestMemory.Create(Page.Size, GuestBacking.Anonymous);
        Assert.False(memory.HasHostView);
        Assert.Throws<InvalidOperationException>(() => memory.HostView(0, 1));
    }

    [Fact]
    public void Registering_twice_is_refused()
    {
        using var memory = GuestMemory.Create(Page.Size);
        memory.Register();
        Assert.True(memory.IsRegistered);
        Assert.Throws<InvalidOperationException>(() => memory.Register());
        memory.Unregister();
        Assert.False(memory.IsRegistered);
        memory.Register();
    }
}
