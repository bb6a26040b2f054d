using System.Buffers.Binary;

namespace Pageferry.Memory.Tests;

public class FaultEngineTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    public static TheoryData<GuestBacking> Backings => new(GuestBacking.Memfd, GuestBacking.Anonymous);

    [Theory]
    [MemberData(nameof(Backings))]
    public void Touched_pages_are_fetched_with_the_right_bytes(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(512 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        source.AnswerThrough(engine);

        for (ulong page = 0; page < memory.PageCount; page += 3)
        {
            Assert.Equal(TestPageSource.WordOf(page), ReadWord(memory, page, 4088));
        }

        // The guest goes on before its wait is counted.
        Assert.True(SpinWait.SpinUntil(() => engine.Statistics.DemandPages == 171, s_patience));
        Assert.Equal(171, source.Requested.Count);
        Assert.Equal(171, engine.Statistics.FaultsBy(FaultCause.Demand));
        Assert.Equal(512 - 171, engine.UnknownPages);
        Assert.Equal(0, engine.PendingFaults);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void A_page_is_requested_once_however_many_threads_wait_for_it(GuestBacking backing)
    {
        const int Waiters = 16;
        using var memory = GuestMemory.Create(4 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);

        var words = new ulong[Waiters];
        Thread[] threads = [.. Enumerable.Range(0, Waiters).Select(i => new Thread(() => words[i] = ReadWord(memory, 2, 8)))];
        Array.ForEach(threads, thread => thread.Start());
        Assert.True(SpinWait.SpinUntil(() => source.Requested.Count > 0, s_patience));
        Thread.Sleep(100);
        Assert.Equal([2UL], source.Requested);
        source.AnswerThrough(engine);
        Assert.All(threads, thread => Assert.True(thread.Join(s_patience)));
        Assert.All(words, word => Assert.Equal(TestPageSource.WordOf(2), word));
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void Zero_pages_read_as_zero_and_complete_the_memory(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(1000 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 10, 5);

        Assert.Equal(995UL, lane.Zero(0, 1000));
        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(0UL, ReadWord(memory, 700, 0));
        Assert.Equal(TestPageSource.WordOf(12), ReadWord(memory, 12, 0));
        Assert.True(SpinWait.SpinUntil(() => engine.Statistics.FaultsBy(FaultCause.Zero) == 1, s_patience));
        memory.WriteAsGuest(701 * Page.Size, [7]);
        Assert.Equal(7UL, ReadWord(memory, 701, 0));

        memory.Unregister();
        Assert.Equal(0UL, ReadWord(memory, 999, 0));
        Assert.Equal(7UL, ReadWord(memory, 701, 0));
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void Who_waits_for_a_page_that_turns_out_zero_goes_on(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(64 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        ulong word = 1;
        var waiter = new Thread(() => word = ReadWord(memory, 33, 0));
        waiter.Start();
        Assert.True(SpinWait.SpinUntil(() => source.Requested.Count == 1, s_patience));
        Assert.Equal(64UL, lane.Zero(0, 64));
        Assert.True(waiter.Join(s_patience));
        Assert.Equal(0UL, word);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void A_page_that_arrives_twice_is_not_taken_twice(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(64 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 8, 4);
        memory.WriteAsGuest(9 * Page.Size, [0xAA]);

        Assert.Equal(-4, lane.Begin(8, 20, out Span<byte> drain));
        Assert.Equal(4 * Page.Size, drain.Length);
        drain.Fill(0xFF);
        Assert.Equal(16, lane.Begin(12, 16, out Span<byte> buffer));
        Assert.Equal(16 * Page.Size, buffer.Length);
        lane.Abandon();

        var one = new byte[1];
        memory.ReadAsGuest(9 * Page.Size, one);
        Assert.Equal(0xAA, one[0]);
        Assert.Equal(PageState.Absent, engine.States[12]);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void An_abandoned_page_is_asked_for_again(GuestBacking backing)
    {
        using var memory = GuestMemory.Create(4 * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        ulong word = 0;
        var waiter = new Thread(() => word = ReadWord(memory, 1, 0));
        waiter.Start();
        Assert.True(SpinWait.SpinUntil(() => source.Requested.Count == 1, s_patience));
        Assert.Equal(1, lane.Begin(1, 1, out Span<byte> torn));
        torn[..100].Fill(0xEE);
        lane.Abandon();
        Assert.True(SpinWait.SpinUntil(() => source.Requested.Count == 2, s_patience));
        source.AnswerThrough(engine);
        Assert.True(waiter.Join(s_patience));
        Assert.Equal(TestPageSource.WordOf(1), word);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void Demand_and_background_race_without_a_wrong_or_lost_page(GuestBacking backing)
    {
        const ulong Pages = 16_384;
        using var memory = GuestMemory.Create(Pages * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane background = engine.CreateLane();
        source.AnswerThrough(engine);

        long wrong = 0;
        Thread[] guests =
        [
            .. Enumerable.Range(1, 3).Select(seed => new Thread(() =>
            {
                var random = new Random(seed);
                for (int i = 0; i < 20_000; i++)
                {
                    ulong page = (ulong)random.NextInt64((long)Pages);
                    wrong += ReadWord(memory, page, random.Next(512) * 8) == TestPageSource.WordOf(page) ? 0 : 1;
                }
            })),
        ];
        Array.ForEach(guests, thread => thread.Start());
        var runs = new Random(7);
        for (ulong page = 0; page < Pages;)
        {
            int count = (int)Math.Min((ulong)runs.Next(1, 200), Pages - page);
            TestPageSource.Deliver(background, page, count);
            page += (ulong)count;
        }

        Assert.All(guests, thread => Assert.True(thread.Join(s_patience)));
        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(0, wrong);
        Assert.Equal((long)Pages, engine.Statistics.DemandPages + engine.Statistics.BackgroundPages);
        Assert.Equal(Pages, engine.States.CountRun(0, Pages, PageState.Present));
        Assert.False(engine.Failed.IsCompleted);
    }

    [Fact]
    public void A_whole_page_that_the_kernel_unmapped_is_placed_again_as_it_is()
    {
        using var memory = GuestMemory.Create(8 * Page.Size);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, 8);
        memory.WriteAsGuest(3 * Page.Size, [0x77]);

        memory.UnmapFromGuest(3, 1);
        var one = new byte[1];
        memory.ReadAsGuest(3 * Page.Size, one);
        Assert.Equal(0x77, one[0]);
        Assert.Empty(source.Requested);
        memory.UnmapFromGuest(3, 1);
        memory.ReadAsGuest(3 * Page.Size, one);
        Assert.Equal(0x77, one[0]);
        Assert.Empty(source.Requested);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void Readers_share_the_faults_and_run_where_they_are_told(GuestBacking backing)
    {
        const ulong Pages = 2_000;
        const int Threads = 4;
        using var memory = GuestMemory.Create(Pages * Page.Size, backing);
        using var engine = new FaultEngine(memory, readers: 3, readerCpus: [0]);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        source.AnswerThrough(engine);
        _ = lane.Zero(0, Pages / 2);

        // All in the same order, so that they wait for the same page; half of the pages are zero.
        long wrong = 0;
        Thread[] guests = [.. Enumerable.Range(0, Threads).Select(i => new Thread(() =>
        {
            for (ulong page = 0; page < Pages; page++)
            {
                ulong expected = page < Pages / 2 ? 0 : TestPageSource.WordOf(page);
                _ = ReadWord(memory, page, 8) == expected ? 0 : Interlocked.Increment(ref wrong);
            }
        }))];
        Array.ForEach(guests, guest => guest.Start());
        Assert.All(guests, guest => Assert.True(guest.Join(s_patience)));
        Assert.Equal(0, wrong);
        Assert.Equal(Pages / 2, (ulong)source.Requested.Count);
        Assert.False(engine.Failed.IsCompleted);
        string[][] readers = [.. Directory.GetDirectories("/proc/self/task").Select(StatusOf).Where(static status => status.Contains("Name:\tfault reader"))];
        Assert.True(readers.Length >= 3);
        Assert.Equal(3, readers.Count(static status => status.Contains("Cpus_allowed_list:\t0")));
    }

    [Fact]
    public void An_engine_without_a_reader_or_on_a_cpu_that_is_not_there_is_refused()
    {
        using var memory = GuestMemory.Create(Page.Size);
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => new FaultEngine(memory, readers: 0));
        using var engine = new FaultEngine(memory, readerCpus: [1023]);
        using var source = new TestPageSource();
        engine.Start(source);
        Assert.True(engine.Failed.Wait(s_patience));
        Assert.Contains("CPU 1023", engine.Failed.Result.Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void The_fault_path_allocates_nothing(GuestBacking backing)
    {
        // The runtime itself may allocate some bytes on this thread when it replaces a loop's code by better one: once, and not for each fault.
        const int Attempts = 5;
        long least = long.MaxValue;
        for (int attempt = 0; attempt < Attempts && least > 0; attempt++)
        {
            least = Math.Min(least, AllocatedByFaults(backing));
        }

        Assert.Equal(0, least);
    }

    private static long AllocatedByFaults(GuestBacking backing)
    {
        const ulong Pages = 2_000;
        using var memory = GuestMemory.Create(Pages * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        using var source = new AllocationMeter();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        source.Lane = lane;
        for (ulong page = 0; page < Pages; page++)
        {
            _ = ReadWord(memory, page, 0);
        }

        Assert.Equal((int)Pages, source.Requests);
        return source.AllocatedBytes;
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Faults_that_are_resolved_on_their_own_thread_allocate_nothing(bool hasUserfaultfd)
    {
        const ulong Warm = 20;
        const ulong Pages = 200;
        using var memory = GuestMemory.Create(Pages * Page.Size);
        using var engine = new FaultEngine(memory, delivery: FaultDelivery.Exit);
        if (!hasUserfaultfd)
        {
            memory.RegisterWith(FaultDelivery.Exit, new ProtectionPlacer(memory));
        }

        using var source = new SlowSource();
        engine.Start(source);
        source.AnswerThrough(engine);
        long before = 0;
        int wrong = 0;
        for (ulong page = 0; page < Pages; page++)
        {
            before = page == Warm ? GC.GetAllocatedBytesForCurrentThread() : before;
            wrong += ReadWord(memory, page, 0) == TestPageSource.WordOf(page) ? 0 : 1;
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.Equal(0, wrong);
    }

    [Fact]
    public void The_host_reads_and_writes_pages_that_are_not_placed_where_faults_are_exits_and_there_is_no_host_view()
    {
        using var memory = GuestMemory.Create(8 * Page.Size, GuestBacking.Anonymous);
        using var engine = new FaultEngine(memory, delivery: FaultDelivery.Exit);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, 1);
        Assert.Equal(7UL, lane.Zero(1, 7));
        memory.Remove(2 * Page.Size, Page.Size);
        var read = new byte[3 * Page.Size];
        memory.ReadPages(0, read);
        Assert.Equal(TestPageSource.WordOf(0), BinaryPrimitives.ReadUInt64LittleEndian(read));
        Assert.False(read.AsSpan(Page.Size).ContainsAnyExcept((byte)0));
        memory.Read(3 * Page.Size, read);
        Assert.False(read.AsSpan().ContainsAnyExcept((byte)0));
        memory.Write(6 * Page.Size, [1]);
        memory.Read(6 * Page.Size, read.AsSpan(0, 1));
        Assert.Equal(1, read[0]);
        Assert.Equal(PageState.Present, engine.States[6]);
        Assert.Equal(PageState.Zero, engine.States[7]);
    }

    [Fact]
    public void While_faults_go_by_the_queue_for_once_nothing_is_removed_and_the_memory_stays_registered()
    {
        using var memory = GuestMemory.Create(4 * Page.Size);
        using var engine = new FaultEngine(memory, delivery: FaultDelivery.Exit);
        using var source = new TestPageSource();
        engine.Start(source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, 4);
        var removal = new Thread(() => memory.Remove(0, Page.Size));
        Assert.True(engine.RunByQueue("a step", _ =>
        {
            removal.Start();
            Assert.False(removal.Join(100));
        }));
        Assert.True(removal.Join(s_patience));
        Assert.Equal(0UL, ReadWord(memory, 0, 0));
        Assert.Equal(1, engine.Statistics.RemovedPages);
        Assert.Empty(source.Requested);

        var end = new Thread(() =>
        {
            engine.Stop();
            memory.Unregister();
        });
        Assert.True(engine.RunByQueue("another", _ =>
        {
            end.Start();
            Assert.False(end.Join(100));
        }));
        Assert.True(end.Join(s_patience));
        Assert.True(engine.RunByQueue("a third", _ => Assert.Fail("There is no queue any more.")));
    }

    [Fact]
    public void Starting_twice_and_lanes_before_the_start_are_refused()
    {
        using var memory = GuestMemory.Create(Page.Size);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        Assert.Throws<InvalidOperationException>(() => engine.CreateLane());
        engine.Start(source);
        Assert.Throws<InvalidOperationException>(() => engine.Start(source));
        using PageLane lane = engine.CreateLane();
        Assert.Throws<ArgumentOutOfRangeException>(() => lane.Begin(0, 0, out _));
        Assert.Throws<ArgumentOutOfRangeException>(() => lane.Begin(0, 2, out _));
        Assert.Throws<ArgumentOutOfRangeException>(() => lane.Zero(1, 1));
        Assert.Equal(1, lane.Begin(0, 1, out _));
        Assert.Throws<InvalidOperationException>(() => lane.Begin(0, 1, out _));
    }

    [Fact]
    public void A_disposed_engine_leaves_the_guest_stalled_not_reading_zeros()
    {
        // The memory is left to the end of the process: its reader waits for ever, as it has to.
        GuestMemory memory = GuestMemory.Create(2 * Page.Size);
        var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        engine.Start(source);
        engine.Dispose();
        var waiter = new Thread(() => ReadWord(memory, 1, 0)) { IsBackground = true };
        waiter.Start();
        Assert.False(waiter.Join(300));
    }

    /// <summary>The lines of a thread's status; none where the thread, of a test beside this one, has ended meanwhile.</summary>
    private static string[] StatusOf(string task)
    {
        try
        {
            return File.ReadAllLines($"{task}/status");
        }
        catch (IOException)
        {
            return [];
        }
    }

    private static ulong ReadWord(GuestMemory memory, ulong page, int offset)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        memory.ReadAsGuest((page * Page.Size) + (ulong)offset, word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }

    /// <summary>Answers on a thread of its own, late enough to be waited for, and has who asks allocate nothing.</summary>
    private sealed class SlowSource : IPageSource, IDisposable
    {
        private const ulong Nothing = ulong.MaxValue;

        private ulong _wanted = Nothing;
        private volatile bool _isOver;
        private Thread? _answering;

        public void Request(ReadOnlySpan<ulong> pages) => Volatile.Write(ref _wanted, pages[0]);

        public void AnswerThrough(FaultEngine engine)
        {
            _answering = new Thread(() =>
            {
                using PageLane lane = engine.CreateLane();
                while (!_isOver)
                {
                    Thread.Sleep(1);
                    if (Interlocked.Exchange(ref _wanted, Nothing) is var page && page != Nothing)
                    {
                        TestPageSource.Deliver(lane, page, 1);
                    }
                }
            });
            _answering.Start();
        }

        public void Dispose()
        {
            _isOver = true;
            _answering?.Join();
        }
    }

    /// <summary>Answers on the reader thread itself and measures what that thread allocates from one request to the next.</summary>
    private sealed class AllocationMeter : IPageSource, IDisposable
    {
        // The meter's own first requests are compiled and load their types here, not in the fault path's rehearsal.
        private const int Warm = 200;

        private long _before;

        public PageLane? Lane { get; set; }

        public long AllocatedBytes { get; private set; }

        public int Requests { get; private set; }

        public void Request(ReadOnlySpan<ulong> pages)
        {
            long now = GC.GetAllocatedBytesForCurrentThread();
            _before = Requests++ < Warm ? now : _before;
            AllocatedBytes = now - _before;
            foreach (ulong page in pages)
            {
                TestPageSource.Deliver(Lane!, page, 1);
            }
        }

        public void Dispose() => Lane = null;
    }
}
