using System.Buffers.Binary;
using Pageferry.Testing;

namespace Pageferry.Memory.Tests;

/// <summary>Memory that a balloon takes away while its content is on the way.</summary>
public class RemovalTests : IClassFixture<HugePages>
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    public static TheoryData<GuestBacking> Backings => new(GuestBacking.Memfd, GuestBacking.Anonymous);

    public static TheoryData<GuestBacking> AllBackings => [GuestBacking.Memfd, GuestBacking.Anonymous, GuestBacking.Memfd2M];

    public static TheoryData<GuestBacking> SharedBackings => new(GuestBacking.Memfd, GuestBacking.Memfd2M);

    public static MatrixTheoryData<GuestBacking, int> BackingsAndReaders => new([GuestBacking.Memfd, GuestBacking.Anonymous, GuestBacking.Memfd2M], [1, 3]);

    [Theory]
    [MemberData(nameof(Backings))]
    public void Removed_pages_read_as_zero_and_are_never_fetched(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(64 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, 16);

        memory.Remove(8 * Page.Size, 16 * Page.Size);
        Assert.Equal(0UL, ReadWord(memory, 9, 0));
        Assert.Equal(0UL, ReadWord(memory, 20, 0));
        Assert.Equal(TestPageSource.WordOf(7), ReadWord(memory, 7, 0));
        Assert.Empty(source.Requested);
        Assert.Equal(16, engine.Statistics.RemovedPages);

        // What arrives late of a removed page is drained.
        Assert.Equal(-4, lane.Begin(20, 4, out _));
        Assert.Equal(0UL, ReadWord(memory, 21, 0));
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void A_page_removed_while_it_arrives_becomes_zero(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(4 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        Assert.Equal(4, lane.Begin(0, 4, out Span<byte> buffer));
        TestPageSource.Fill(0, buffer);
        ulong word = 1;
        var waiter = new Thread(() => word = ReadWord(memory, 2, 0));
        waiter.Start();
        Assert.True(SpinWait.SpinUntil(() => engine.PendingFaults == 1, s_patience));
        memory.Remove(2 * Page.Size, Page.Size);
        Assert.True(SpinWait.SpinUntil(() => engine.States[2] == PageState.ArrivingRemoved, s_patience));
        lane.Complete();
        Assert.True(waiter.Join(s_patience));
        Assert.Equal(0UL, word);
        Assert.Equal(TestPageSource.WordOf(1), ReadWord(memory, 1, 0));
        Assert.Equal(TestPageSource.WordOf(3), ReadWord(memory, 3, 0));
        Assert.True(engine.Completed.Wait(s_patience));
    }

    [Theory]
    [MemberData(nameof(AllBackings))]
    public void A_page_that_is_touched_between_the_telling_of_its_removal_and_the_doing_is_zero_both_times(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(1024 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        ulong unit = memory.FaultPages;

        // The kernel tells, waits until that is read, and goes on when it likes.
        using (engine.Placing.EnterAll())
        {
            engine.ApplyRemoval(0, 2 * unit);
        }

        Assert.Equal(0UL, ReadWord(memory, unit, 0));
        memory.DropContent(0, 2 * unit);
        Assert.Equal(0UL, ReadWord(memory, unit, 0));
        memory.WriteAsGuest(unit * Page.Size, [0x77]);
        memory.UnmapFromGuest(0, unit);
        Assert.Equal(0x77UL, ReadWord(memory, unit, 0));
        Assert.Empty(source.Requested);
        Assert.False(engine.Failed.IsCompleted);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void What_is_removed_while_it_is_armed_does_not_come_back(GuestBacking backing)
    {
        const int Rounds = 30;
        const ulong Pages = 1024;
        using var memory = GuestMemory.Create(Pages * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source, armed: false);
        var content = new byte[memory.Size];
        for (int round = 0; round < Rounds; round++)
        {
            content.AsSpan().Fill(0x77);
            memory.WriteAsGuest(0, content);
            var arming = new Thread(() => engine.Arm(0, memory.Size));
            arming.Start();
            memory.Remove(0, memory.Size);
            Assert.True(arming.Join(s_patience));
            _ = engine.Disarm(0, memory.Size);
            memory.ReadAsGuest(0, content);
            Assert.Equal(-1, content.AsSpan().IndexOfAnyExcept((byte)0));
        }
    }

    [Fact]
    public void Who_finds_a_page_removed_finds_the_removal_counted()
    {
        const ulong Pages = 1 << 18;
        using var memory = GuestMemory.Create(Pages * Page.Size);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        long counted = 0;
        var lane = new Thread(() =>
        {
            while (engine.States[0] != PageState.Removed)
            {
            }

            counted = engine.Statistics.RemovedPages;
        });
        lane.Start();
        using (engine.Placing.EnterAll())
        {
            engine.ApplyRemoval(0, Pages);
        }

        Assert.True(lane.Join(s_patience));
        Assert.Equal((long)Pages, counted);
    }

    [Theory]
    [MemberData(nameof(SharedBackings))]
    public void Without_a_userfaultfd_the_memory_tells_of_removals_itself(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(2048 * Page.Size, backing);
        using var engine = new FaultEngine(memory, delivery: FaultDelivery.Exit);
        memory.RegisterWith(FaultDelivery.Exit, new ProtectionPlacer(memory));
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        for (int i = 0; i < 1024; i += PageLane.MaxPages)
        {
            TestPageSource.Deliver(lane, (ulong)i, PageLane.MaxPages);
        }

        memory.Remove(512 * Page.Size, 1024 * Page.Size);
        Assert.Equal(0UL, ReadWord(memory, 600, 0));
        Assert.Equal(0UL, ReadWord(memory, 1100, 0));
        Assert.Equal(TestPageSource.WordOf(511), ReadWord(memory, 511, 0));
        Assert.Empty(source.Requested);
        Assert.Equal(512, engine.UnknownPages);
        Assert.Equal(1024, engine.Statistics.RemovedPages);
    }

    [Theory]
    [MemberData(nameof(AllBackings))]
    public void A_range_that_is_no_memory_or_not_whole_is_not_removed(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(1024 * Page.Size, backing);
        memory.Write(0, [1]);
        _ = Assert.Throws<ArgumentException>(() => memory.Remove(0, 0));
        _ = Assert.Throws<ArgumentException>(() => memory.Remove(0, memory.FaultSize / 2));
        _ = Assert.Throws<ArgumentException>(() => memory.Remove(memory.FaultSize / 2, memory.FaultSize));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => memory.Remove(0, memory.Size + memory.FaultSize));
        Assert.Equal(1UL, ReadWord(memory, 0, 0));
        memory.Remove(0, memory.FaultSize);
        Assert.Equal(0UL, ReadWord(memory, 0, 0));
    }

    [Theory]
    [MemberData(nameof(AllBackings))]
    public void A_dirty_tracker_tells_what_was_removed_once(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(4096 * Page.Size, backing);
        for (ulong page = 0; page < memory.PageCount; page++)
        {
            memory.Write(page * Page.Size, [1]);
        }

        using var tracker = new ScanDirtyTracker(memory);
        var before = new PageBitmap(memory.PageCount);
        tracker.Fetch(before);
        tracker.Rearm(0, memory.PageCount);
        memory.Remove(1024 * Page.Size, 1024 * Page.Size);
        var dirty = new PageBitmap(memory.PageCount);
        tracker.Fetch(dirty);
        Assert.Equal(1024UL, dirty.Next(0, memory.PageCount));
        Assert.Equal(1024UL, dirty.CountPages());

        tracker.Rearm(1024, 1024);
        var again = new PageBitmap(memory.PageCount);
        tracker.Fetch(again);
        Assert.Equal(0UL, again.CountPages());
    }

    [Theory]
    [MemberData(nameof(BackingsAndReaders))]
    public void Removals_race_demand_and_background_without_a_wrong_page(GuestBacking backing, int readers)
    {
        const ulong Pages = 16_384;
        using var memory = GuestMemory.Create(Pages * Page.Size, backing);
        using var engine = new FaultEngine(memory, readers: readers);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane background = engine.CreateLane();
        source.AnswerThrough(engine);

        long wrong = 0;
        Thread[] guests = [.. Enumerable.Range(0, readers).Select(i => new Thread(() =>
        {
            var random = new Random(3 + (2 * i));
            for (int i = 0; i < 20_000; i++)
            {
                ulong page = (ulong)random.NextInt64((long)Pages);
                ulong word = ReadWord(memory, page, random.Next(512) * 8);
                _ = word == TestPageSource.WordOf(page) || word == 0 ? 0 : Interlocked.Increment(ref wrong);
            }
        }))];
        var remover = new Thread(() =>
        {
            var random = new Random(4);
            long units = (long)(Pages / memory.FaultPages);
            for (int i = 0; i < 500; i++)
            {
                ulong count = (ulong)random.NextInt64(1, Math.Min(8, units / 8));
                memory.Remove((ulong)random.NextInt64(units - (long)count) * memory.FaultSize, count * memory.FaultSize);
            }
        });
        Array.ForEach(guests, guest => guest.Start());
        remover.Start();
        for (ulong page = 0; page < Pages; page += 64)
        {
            TestPageSource.Deliver(background, page, 64);
        }

        Assert.All(guests, guest => Assert.True(guest.Join(s_patience)));
        Assert.True(remover.Join(s_patience));
        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(0, wrong);
        Assert.False(engine.Failed.IsCompleted, engine.Failed.IsCompleted ? engine.Failed.Result.Message : null);
    }

    private static ulong ReadWord(GuestMemory memory, ulong page, int offset)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        memory.ReadAsGuest((page * Page.Size) + (ulong)offset, word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }
}
