namespace Pageferry.Memory.Tests;

/// <summary>Memory of which there is nothing here but a userfaultfd, in a process that changes its address space as it likes.</summary>
public sealed class ForeignMemoryTests : IDisposable
{
    private const ulong Pages = 64;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly ForeignProcess _process = new(Pages);
    private readonly GuestMemory _memory;
    private readonly FaultEngine _engine;
    private readonly TestPageSource _source = new();

    public ForeignMemoryTests()
    {
        // In two ranges, so that page numbers and addresses go different ways.
        _memory = GuestMemory.OfProcess([new(_process.Address, 16 * Page.Size), new(_process.Address + (16 * Page.Size), (Pages - 16) * Page.Size)], _process.Userfaultfd);
        _engine = new FaultEngine(_memory);
    }

    public void Dispose()
    {
        _process.Dispose();
        _engine.Dispose();
        _source.Dispose();
        _memory.Dispose();
    }

    [Fact]
    public void A_fault_brings_content_and_one_elsewhere_zeros()
    {
        Start();
        Assert.Equal(Content(3, 20), _process.Do('r', 3, 20));
        Assert.Equal(0UL, _process.Do('r', Pages, 5));

        // They are counted when they were placed, and the process runs on from then.
        Assert.True(SpinWait.SpinUntil(() => _engine.Statistics.DemandPages == 20, s_patience), $"{_engine.Statistics.DemandPages}");
        using PageLane lane = _engine.CreateLane();
        TestPageSource.Deliver(lane, 0, (int)Pages);
        Assert.True(_engine.Completed.Wait(s_patience));
        Assert.Equal(Content(0, Pages), _process.Do('r', 0, Pages));
        Assert.Throws<InvalidOperationException>(() => _engine.Memory.ReadPages(0, new byte[Page.Size]));
        Assert.Throws<InvalidOperationException>(() => _engine.Arm(_memory.GpaOf(0), Page.Size));
    }

    [Fact]
    public void What_was_given_back_or_unmapped_is_never_fetched_and_what_was_moved_arrives_where_it_is()
    {
        Start();
        Assert.Equal(0UL, _process.Do('d', 2, 10));
        Assert.Equal(0UL, _process.Do('u', 14, 10));
        Assert.Equal(0UL, _process.Do('m', 30, 20));
        Assert.Equal(0UL, _process.Do('n', 14, 10));

        Assert.Equal(0UL, _process.Do('r', 2, 10));
        Assert.Equal(0UL, _process.Do('r', 14, 10));
        Assert.Equal(Content(30, 20), _process.Do('r', 30, 20));
        Assert.Equal(Content(12, 2), _process.Do('r', 12, 2));

        // Again, and a piece of it.
        Assert.Equal(0UL, _process.Do('m', 50, 10));
        Assert.Equal(0UL, _process.Do('m', 52, 3));
        Assert.Equal(0UL, _process.Do('d', 53, 1));
        using PageLane lane = _engine.CreateLane();
        TestPageSource.Deliver(lane, 0, (int)Pages);
        Assert.True(_engine.Completed.Wait(s_patience));
        Assert.Equal(Content(50, 3) + Content(54, 10), _process.Do('r', 50, 14));
        Assert.DoesNotContain(_source.Requested, page => page is (>= 2 and < 12) or (>= 14 and < 24));
    }

    [Fact]
    public void A_run_that_lies_in_several_mappings_arrives_and_what_is_registered_nowhere_is_given_up()
    {
        Start();
        Assert.Equal(0UL, _process.Do('p', 20, 3));
        using PageLane lane = _engine.CreateLane();
        TestPageSource.Deliver(lane, 16, 30);
        Assert.Equal(Content(16, 30), _process.Do('r', 16, 30));

        // Nothing tells of what was never registered.
        using var elsewhere = new ForeignProcess(Pages);
        using var memory = GuestMemory.OfProcess([new(elsewhere.Address - (4 * Page.Size), 8 * Page.Size)], elsewhere.Userfaultfd);
        using var engine = new FaultEngine(memory);
        engine.Start(_source);
        using PageLane other = engine.CreateLane();
        TestPageSource.Deliver(other, 0, 8);
        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(PageState.Removed, engine.States[3]);
        Assert.Equal(Content(4, 4), elsewhere.Do('r', 0, 4));
    }

    [Fact]
    public void What_arrives_while_pages_are_moved_arrives_where_they_are()
    {
        // Most are there, so that a move takes long: their page table entries go one by one, since the room is no multiple of 2 MiB away.
        const int Here = 16_385;
        const int Arriving = 8192;
        using var process = new ForeignProcess(Here + Arriving);
        using var memory = GuestMemory.OfProcess([new(process.Address, (Here + Arriving) * Page.Size)], process.Userfaultfd);
        using var engine = new FaultEngine(memory);
        engine.Start(_source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, Here);
        var delivering = new Thread(() =>
        {
            for (ulong page = Here; page < Here + Arriving; page++)
            {
                TestPageSource.Deliver(lane, page, 1);
            }
        });
        delivering.Start();
        int moves = 0;
        for (; !delivering.Join(0); moves++)
        {
            Assert.Equal(0UL, process.Do('m', 1, Here + Arriving - 1));
        }

        Assert.True(engine.Completed.Wait(s_patience));
        Assert.Equal(0, engine.Statistics.RemovedPages);
        Assert.Equal((ulong)Arriving, engine.States.CountRun(Here, Arriving, PageState.Present));
        Assert.Equal(Content(0, Here + Arriving), process.Do('r', 0, Here + Arriving));
        Assert.True(moves > 0);
    }

    [Fact]
    public void What_is_moved_to_where_other_pages_have_just_left_stays_there()
    {
        // Both moves are made before any message of theirs is read.
        Task<ulong> moving = Task.Run(() => _process.Do('o', 20, 10));
        Assert.False(moving.Wait(500));
        Start();
        Assert.True(moving.Wait(s_patience));
        Assert.Equal(0UL, moving.Result);
        Assert.Equal(Content(20, 20), _process.Do('r', 20, 20));
        Assert.Equal(0, _engine.Statistics.RemovedPages);

        // What is unmapped there now is unmapped.
        Assert.Equal(0UL, _process.Do('u', 35, 5));
        Assert.Equal(0UL, _process.Do('u', 30, 5));
        Assert.True(SpinWait.SpinUntil(() => _engine.Statistics.RemovedPages == 10, s_patience));
    }

    [Fact]
    public void A_child_has_what_had_arrived_and_gets_the_rest_and_neither_sees_what_the_other_writes()
    {
        var children = new List<FaultEngine>();
        using var forChild = new TestPageSource();
        _engine.Forked = child =>
        {
            child.Start(forChild);
            forChild.AnswerThrough(child);
            children.Add(child);
        };
        Start();
        Assert.Equal(Content(0, 10), _process.Do('r', 0, 10));
        Assert.Equal(0UL, _process.Do('d', 4, 1));
        Assert.Equal(0UL, _process.Do('m', 20, 10));
        Func<char, ulong, ulong, ulong> child = _process.Fork();
        _ = _process.Do('w', 0, 40);
        Assert.Equal(Content(0, 4) + Content(5, 35), child('r', 0, 40));
        Assert.DoesNotContain(forChild.Requested, page => page < 10);
        _ = child('w', 30, 20);
        Assert.Equal(Content(40, 10), _process.Do('r', 40, 10));

        // The child unmaps for itself.
        Assert.Equal(0UL, child('u', 50, 10));
        Assert.Equal(Content(50, 14), _process.Do('r', 50, 14));

        FaultEngine engine = Assert.Single(children);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, (int)Pages);
        Assert.True(engine.Completed.Wait(s_patience));
        forChild.Stop();
        engine.Dispose();
        engine.Memory.Dispose();
        Assert.Equal(Content(60, 4), child('r', 60, 4));
    }

    [Fact]
    public void A_child_that_nobody_could_take_waits_for_what_is_missing_and_reads_no_zeros()
    {
        _engine.Forked = static _ => throw new IOException("too many open files");
        Start();
        Func<char, ulong, ulong, ulong> child = _process.Fork();
        Assert.True(_engine.Failed.Wait(s_patience));
        _ = Assert.IsType<IOException>(_engine.Failed.Result);

        // What nobody refers to any more would be closed.
        for (int i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        Task<ulong> reading = Task.Run(() => child('r', 3, 1));
        Assert.False(reading.Wait(500));

        // The child ends with it.
        _process.Kill();
        _ = Assert.Throws<AggregateException>(() => reading.Wait(s_patience));
    }

    [Fact]
    public void A_process_that_ends_ends_its_memory_and_no_more()
    {
        Start();
        _ = _process.Do('r', 0, 5);
        _process.Kill();
        using PageLane lane = _engine.CreateLane();
        TestPageSource.Deliver(lane, 8, 8);
        Assert.True(_engine.Gone.Wait(s_patience));
        Assert.False(_engine.Failed.IsCompleted);
        Assert.True(_engine.IsStopped);
    }

    [Fact]
    public void Memory_without_a_page_is_complete() => Assert.True(MakeEmpty().Completed.IsCompleted);

    private static FaultEngine MakeEmpty()
    {
        using var process = new ForeignProcess(1);
        using var memory = GuestMemory.OfProcess([], process.Userfaultfd);
        var engine = new FaultEngine(memory);
        engine.Dispose();
        return engine;
    }

    /// <summary>What reading pages that have content adds up to.</summary>
    private static ulong Content(ulong first, ulong count)
    {
        const ulong WordsRead = 8;
        ulong sum = 0;
        for (ulong page = first; page < first + count; page++)
        {
            sum += WordsRead * TestPageSource.WordOf(page);
        }

        return sum;
    }

    private void Start()
    {
        _engine.Start(_source);
        _source.AnswerThrough(_engine);
    }
}
