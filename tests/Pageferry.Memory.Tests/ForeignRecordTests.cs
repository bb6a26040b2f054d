using System.Collections.Concurrent;
using Pageferry.Linux;

namespace Pageferry.Memory.Tests;

/// <summary>Another process's memory goes on by the record of an engine that died, wherever it was.</summary>
public sealed class ForeignRecordTests : IDisposable
{
    private const int Pid = 7;
    private const ulong Pages = 64;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly ForeignProcess _process = new(Pages);
    private readonly GuestRegion[] _ranges;
    private readonly ForeignRecord _record;
    private readonly GuestMemory _memory;
    private readonly TestPageSource _source = new();

    public ForeignRecordTests()
    {
        _ranges = [new(_process.Address, 16 * Page.Size), new(_process.Address + (16 * Page.Size), (Pages - 16) * Page.Size)];
        _record = ForeignRecord.Begin(Pid, _ranges);
        _memory = GuestMemory.OfProcess(_record, _process.Userfaultfd);
    }

    public void Dispose()
    {
        _process.Dispose();
        _source.Dispose();
        _memory.Dispose();
    }

    [Fact]
    public void Another_engine_goes_on_where_the_pages_are_by_now()
    {
        using (var dead = new FaultEngine(_memory))
        {
            using var source = new TestPageSource();
            dead.Start(source);
            source.AnswerThrough(dead);
            Assert.Equal(Content(0, 10), _process.Do('r', 0, 10));
            Assert.Equal(0UL, _process.Do('d', 2, 10));
            Assert.Equal(0UL, _process.Do('u', 14, 6));
            Assert.Equal(0UL, _process.Do('m', 30, 20));
            Assert.Equal(0UL, _process.Do('m', 32, 3));
        }

        // Removed behind the dead engine's back: the kernel waits until the next one has read of it.
        Task<ulong> removed = Task.Run(() => _process.Do('d', 40, 2));
        using FaultEngine engine = TakeOver();
        Assert.Equal(0UL, removed.Result);
        Assert.Equal(Content(0, 2), _process.Do('r', 0, 2));
        Assert.Equal(0UL, _process.Do('r', 2, 10));
        Assert.Equal(Content(12, 2), _process.Do('r', 12, 2));
        Assert.Equal(Content(20, 20) + Content(42, 22), _process.Do('r', 20, 44));
        Assert.True(engine.Completed.Wait(s_patience));
        Assert.DoesNotContain(_source.Requested, page => page is < 12 or (>= 14 and < 20) or 40 or 41);
        _source.Stop();
        engine.Memory.Dispose();
    }

    [Theory]
    [InlineData('d', 10, 10)]
    [InlineData('u', 10, 10)]
    [InlineData('m', 10, 20)]
    public void What_an_engine_had_read_and_not_acted_upon_when_it_died_is_done_by_the_next(char letter, ulong first, ulong count)
    {
        // The process goes on as soon as it is read. Part of it has come, of part it is not known whether it has.
        Place(12, 2, PageState.Present);
        Place(14, 2, PageState.Arriving);
        Assert.Equal(2UL, _record.States.Claim(16, 2, PageState.Arriving, out _));
        Task<ulong> doing = ReadOnceOf(() => _process.Do(letter, first, count));
        Assert.False(_record.Unapplied[0].IsEmpty);
        using FaultEngine engine = TakeOver();
        Assert.Equal(0UL, doing.Result);
        ulong end = first + count;
        if (letter == 'u')
        {
            Assert.Equal(0UL, _process.Do('n', first, count));
        }

        Assert.Equal(letter == 'm' ? Content(first, count) : 0, _process.Do('r', first, count));
        Assert.Equal(Content(0, first) + Content(end, Pages - end), _process.Do('r', 0, first) + _process.Do('r', end, Pages - end));
        _source.Stop();
        engine.Memory.Dispose();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(Pages + 3)]
    public void Who_waits_in_a_fault_that_was_read_goes_on(ulong page)
    {
        Task<ulong> read = ReadOnceOf(() => _process.Do('r', page, 1));
        Assert.Equal(PageState.Absent, _record.States[0]);
        using FaultEngine engine = TakeOver();
        Assert.True(read.Wait(s_patience));
        Assert.Equal(page == 0 ? Content(0, 1) : 0, read.Result);
        _source.Stop();
        engine.Memory.Dispose();
    }

    [Fact]
    public void A_child_that_was_read_of_and_is_kept_by_nobody_is_counted()
    {
        var kept = new ConcurrentQueue<ForeignRecord>();
        _record.Forking = (child, _) => kept.Enqueue(child);
        using (var dead = new FaultEngine(_memory))
        {
            dead.Forked = static _ => { };
            dead.Start(_source);
            _ = _process.Fork();
            Assert.True(SpinWait.SpinUntil(() => !kept.IsEmpty && _record.Unapplied[0].IsEmpty, s_patience));
        }

        Assert.Equal(0, Open().CountChildren(kept));
        Assert.True(ReadOnceOf(_process.Fork).Wait(s_patience));
        new FileDescriptor(_record.Unapplied[0].ForkDescriptor).Dispose();
        Assert.Equal(1, Open().CountChildren(kept));
    }

    [Fact]
    public void A_child_that_is_kept_and_not_filled_gets_what_its_parent_had_when_it_forked()
    {
        // Its engine dies as soon as the child is kept, with a page gone before and one behind the fork.
        Place(0, 4, PageState.Present);
        ForeignRecord? kept = null;
        Userfaultfd? userfaultfd = null;
        Task<ulong> removed = ReadOnceOf(() => _process.Do('d', 8, 2));
        Func<char, ulong, ulong, ulong> childDoes;
        using (FaultEngine dead = TakeOver())
        {
            Assert.Equal(0UL, removed.Result);
            dead.Memory.Record!.Forking = (child, its) =>
            {
                (kept, userfaultfd) = (child, its);
                throw new OperationCanceledException();
            };
            childDoes = _process.Fork();
            Assert.True(dead.Failed.Wait(s_patience));
        }

        using ForeignRecord parent = Open();
        var child = ForeignRecord.Open(kept!.Descriptor.Duplicate(), pid => pid == Pid ? _ranges : null);
        Assert.False(child.IsFilled);
        Assert.Equal(0, parent.CountChildren([parent, child]));
        Assert.Throws<InvalidDataException>(() => child.FillFrom([child]));
        child.FillFrom([child, parent]);
        var memory = GuestMemory.OfProcess(child, userfaultfd!);
        using var engine = FaultEngine.TakeOver(memory, child.States, logger: null);
        using var source = new TestPageSource();
        engine.Start(source);
        source.AnswerThrough(engine);
        Assert.Equal(Content(0, 8) + Content(10, 6), childDoes('r', 0, 16));
        Assert.DoesNotContain(source.Requested, page => page is < 4 or 8 or 9);
        source.Stop();
        memory.Dispose();
    }

    [Fact]
    public void A_view_that_was_not_finished_counts_for_nothing()
    {
        var view = new ForeignView(_record.ReadView());
        view.Move(_process.Address, 0x10_0000_0000, 4 * Page.Size);
        _record.Commit(0, view);
        ulong at = 0x10_0000_0000;
        Assert.True(Open().ReadView().TryNext(ref at, at + Page.Size, out ulong page, out _));
        Assert.Equal(0UL, page);

        // The slot that is not the current one may have anything in it.
        using var raw = Raw();
        for (int offset = Page.Size; offset < Page.Size + 8192; offset++)
        {
            raw.Span(offset, 1)[0] = 0xa5;
        }

        at = 0x10_0000_0000;
        Assert.True(Open().ReadView().TryNext(ref at, at + Page.Size, out page, out _));
    }

    [Fact]
    public void A_record_that_is_none_of_this_build_and_memory_is_refused_by_name()
    {
        Assert.Contains("which these images don't have", Refuse(_record.Descriptor.Duplicate(), _ => null), StringComparison.Ordinal);
        Assert.Contains("another one than in these images", Refuse(_record.Descriptor.Duplicate(), _ => [_ranges[0]]), StringComparison.Ordinal);
        Assert.Contains("another one than in these images", Refuse(_record.Descriptor.Duplicate(), _ => [_ranges[0] with { Gpa = Page.Size }, _ranges[1]]), StringComparison.Ordinal);
        Assert.Contains("bytes", Refuse(MemoryFile.Create("empty", 0).Descriptor, _ => _ranges), StringComparison.Ordinal);
        Assert.Contains("no record", Refuse(MemoryFile.Create("zeros", 1 << 20).Descriptor, _ => _ranges), StringComparison.Ordinal);
        using var raw = Raw();
        raw.Span(8, 1)[0]++;
        Assert.Contains("version 2; this build knows version 1", Refuse(_record.Descriptor.Duplicate(), _ => _ranges), StringComparison.Ordinal);
    }

    [Fact]
    public void A_record_that_is_damaged_is_refused_or_read_within_its_bounds()
    {
        const int Attempts = 3000;
        var random = new Random(1);
        using var raw = Raw();
        byte[] whole = raw.Span(0, raw.Length).ToArray();
        int refused = 0;
        for (int attempt = 0; attempt < Attempts; attempt++)
        {
            whole.CopyTo(raw.Span(0, raw.Length));

            // The head, what is read first of the slot, and any byte.
            int within = (attempt % 3) switch { 0 => 96, 1 => Page.Size + 512, _ => raw.Length };
            for (int i = random.Next(1, 4); i > 0; i--)
            {
                raw.Span(random.Next(within), 1)[0] = (byte)random.Next(256);
            }

            try
            {
                using ForeignRecord record = ForeignRecord.Open(_record.Descriptor.Duplicate(), pid => pid == Pid ? _ranges : null);
                Assert.Equal(Pages, (ulong)record.Ranges.Sum(range => (long)range.Length) / Page.Size);
                ulong at = 0;
                while (record.ReadView().TryNext(ref at, ulong.MaxValue, out ulong page, out ulong count))
                {
                    Assert.InRange(page + count, 1UL, Pages);
                }
            }
            catch (InvalidDataException)
            {
                refused++;
            }
        }

        Assert.InRange(refused, Attempts / 10, Attempts);
    }

    private static string Refuse(FileDescriptor file, Func<int, IReadOnlyList<GuestRegion>?> rangesOf) =>
        Assert.Throws<InvalidDataException>(() => ForeignRecord.Open(file, rangesOf)).Message;

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

    /// <summary>Places pages as an engine does that dies before it has noted more than a state.</summary>
    private void Place(ulong page, ulong count, PageState noted)
    {
        using var content = MappedRegion.MapAnonymous(count * Page.Size);
        TestPageSource.Fill(page, content.Span(0, (int)count * Page.Size));
        Assert.Equal(count, _record.States.Claim(page, count, PageState.Arriving, out _));
        Assert.Equal(UserfaultfdResult.Done, _process.Userfaultfd.Copy(_process.Address + (page * Page.Size), content.Address, count * Page.Size, UserfaultfdCopyFlags.None, out _));
        _ = _record.States.Replace(page, count, PageState.Arriving, noted);
    }

    private int Read() => _process.Userfaultfd.Read(_record.Unapplied);

    /// <summary>Reads what the process tells first while it does something, and does nothing about it.</summary>
    private Task<T> ReadOnceOf<T>(Func<T> does)
    {
        Task<T> doing = Task.Run(does);
        Assert.True(SpinWait.SpinUntil(() => Read() > 0, s_patience));
        return doing;
    }

    private NativeBuffer Raw()
    {
        var file = MemoryFile.FromDescriptor(_record.Descriptor.Duplicate(), "raw");
        using (file)
        {
            return new NativeBuffer(file);
        }
    }

    private ForeignRecord Open() => ForeignRecord.Open(_record.Descriptor.Duplicate(), pid => pid == Pid ? _ranges : null);

    private FaultEngine TakeOver()
    {
        var memory = GuestMemory.OfProcess(Open(), Userfaultfd.FromDescriptor(_process.Userfaultfd.Descriptor.Duplicate()));
        var engine = FaultEngine.TakeOver(memory, memory.Record!.States, logger: null);
        engine.Start(_source);
        _source.AnswerThrough(engine);
        return engine;
    }
}
