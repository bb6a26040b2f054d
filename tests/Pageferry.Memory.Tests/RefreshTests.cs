using System.Buffers.Binary;
using Pageferry.Testing;

namespace Pageferry.Memory.Tests;

/// <summary>Memory that gets its content several times before the guest runs, and whose last of it may be out of date.</summary>
public class RefreshTests : IClassFixture<HugePages>
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    public static TheoryData<GuestBacking> Backings => new(GuestBacking.Memfd, GuestBacking.Anonymous, GuestBacking.Memfd2M);

    [Theory]
    [MemberData(nameof(Backings))]
    public void Content_that_comes_again_replaces_what_was_there(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(1024 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();

        // Three ways in which a page may have come before: as content, as zero, not at all.
        Fill(lane, 100, generation: 1);
        lane.Refresh(0, 100, 0);
        lane.RefreshZero(100, 100);
        Fill(lane, 150, generation: 2);
        lane.Refresh(80, 150, 0);
        lane.RefreshZero(90, 5);
        lane.RefreshZero(230, 1024 - 230);

        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(0, engine.UnknownPages);
        Assert.Equal(Word(79, 1), Read(memory, 79));
        Assert.Equal(Word(0, 2), Read(memory, 80));
        Assert.Equal(0UL, Read(memory, 92));
        Assert.Equal(Word(70, 2), Read(memory, 150));
        Assert.Equal(Word(149, 2), Read(memory, 229));
        Assert.Equal(0UL, Read(memory, 230));
        Assert.Empty(source.Requested);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void Discarded_pages_are_fetched_again_and_the_others_are_not(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(1024 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        Fill(lane, 256, generation: 1);
        for (ulong page = 0; page < 1024; page += 256)
        {
            lane.Refresh(page, 256, 0);
        }

        Assert.True(engine.Completed.Wait(s_patience));
        engine.Discard(10, 3);
        engine.Discard(512, 512);
        Assert.Equal(515, engine.UnknownPages);
        Assert.False(engine.Completed.IsCompleted);

        source.AnswerThrough(engine);
        Assert.Equal(TestPageSource.WordOf(11), Read(memory, 11));
        Assert.Equal(Word(13, 1), Read(memory, 13));
        Assert.Equal(TestPageSource.WordOf(600), Read(memory, 600));
        Fill(lane, 256, generation: 2);
        _ = lane.Place(0, 256, 0);
        _ = lane.Place(512, 256, 0);
        _ = lane.Place(768, 256, 0);
        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(Word(14, 1), Read(memory, 14));
        Assert.Equal(TestPageSource.WordOf(600), Read(memory, 600));

        // A huge page is asked for whole when one of its pages is touched.
        Assert.Equal(backing == GuestBacking.Memfd2M ? TestPageSource.WordOf(1023) : Word(255, 2), Read(memory, 1023));
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void A_discarded_page_that_is_told_to_be_zero_is_zero(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(1024 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        Fill(lane, 256, generation: 1);
        for (ulong page = 0; page < 1024; page += 256)
        {
            lane.Refresh(page, 256, 0);
        }

        // Some pages of one huge page, and all of another.
        engine.Discard(10, 3);
        engine.Discard(512, 512);
        Assert.Equal(515UL, lane.Zero(0, 1024));
        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(Word(9, 1), Read(memory, 9));
        for (ulong page = 10; page < 13; page++)
        {
            Assert.Equal(0UL, Read(memory, page));
        }

        Assert.Equal(Word(13, 1), Read(memory, 13));
        Assert.Equal(0UL, Read(memory, 512));
        Assert.Equal(0UL, Read(memory, 1023));
    }

    [Fact]
    public void A_huge_page_is_hidden_once_however_many_runs_of_it_are_discarded()
    {
        using var guest = GuestMemory.Create(1024 * Page.Size, GuestBacking.Memfd2M);
        guest.Register();
        var owner = new GuestViewOwner(guest);
        using var memory = GuestMemory.OfOwner(guest.Regions, GuestBacking.Memfd2M, guest.Share(), owner);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        lane.RefreshZero(0, 1024);
        for (ulong page = 1; page < 1024; page += 2)
        {
            engine.Discard(page, 1);
        }

        Assert.Equal(2, owner.Unmaps);
        Assert.Equal(512, engine.UnknownPages);
        Fill(lane, 1, generation: 2);
        for (ulong page = 1; page < 1024; page += 2)
        {
            Assert.Equal(1, lane.Place(page, 1, 0));
        }

        Assert.Equal(0UL, Read(guest, 512));
        Assert.Equal(Word(0, 2), Read(guest, 1023));
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void Only_what_is_wanted_of_a_run_is_placed(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(512 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        Fill(lane, 30, generation: 1);
        Assert.Equal(10, lane.Place(10, 10, 10));
        Fill(lane, 30, generation: 2);
        Assert.Equal(20, lane.Place(0, 30, 0));
        Assert.Equal(482UL, lane.Zero(0, 512));

        Assert.Equal(Word(9, 2), Read(memory, 9));
        Assert.Equal(Word(10, 1), Read(memory, 10));
        Assert.Equal(Word(20, 2), Read(memory, 20));
    }

    [Fact]
    public void What_is_not_in_the_buffer_or_the_memory_is_refused()
    {
        using var memory = GuestMemory.Create(16 * Page.Size);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        Assert.Throws<ArgumentOutOfRangeException>(() => lane.Place(0, PageLane.MaxPages + 1, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => lane.Place(0, 1, PageLane.MaxPages));
        Assert.Throws<ArgumentOutOfRangeException>(() => lane.Place(16, 1, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => lane.Refresh(15, 2, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Discard(15, 2));
        Assert.Equal(16, engine.UnknownPages);
    }

    private static ulong Word(ulong pageOfBuffer, ulong generation) => (pageOfBuffer << 8) | generation;

    private static void Fill(PageLane lane, int pages, ulong generation)
    {
        for (int page = 0; page < pages; page++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(lane.Buffer[(page * Page.Size)..], Word((ulong)page, generation));
        }
    }

    private static ulong Read(GuestMemory memory, ulong page)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        memory.ReadAsGuest(page * Page.Size, word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }
}
