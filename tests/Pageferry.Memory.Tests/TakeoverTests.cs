using System.Buffers.Binary;
using Pageferry.Linux;

namespace Pageferry.Memory.Tests;

/// <summary>An engine goes on where another one left off: with its page states and the guest's file and userfaultfd, and nothing else of it.</summary>
public sealed class TakeoverTests : IDisposable
{
    private const ulong Pages = 64;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly GuestMemory _guest = GuestMemory.Create(Pages * Page.Size);
    private readonly NativeBuffer _buffer = new(Page.Size);
    private readonly GuestViewOwner _owner;

    public TakeoverTests()
    {
        _guest.Register();
        _owner = new GuestViewOwner(_guest);
    }

    public void Dispose()
    {
        _guest.Dispose();
        _buffer.Dispose();
    }

    [Fact]
    public void What_was_asked_for_and_not_answered_is_asked_for_again()
    {
        using var source = new TestPageSource();
        Thread waiting;
        ulong read = 0;
        using (var dead = new Side(this))
        {
            dead.Engine.Start(source);
            waiting = new Thread(() => read = ReadWord(7));
            waiting.Start();
            Assert.True(SpinWait.SpinUntil(() => source.Requested.Count == 1, s_patience));
            Assert.Equal(PageState.Requested, dead.Engine.States[7]);
        }

        using var next = new Side(this, takesOver: true);
        using var again = new TestPageSource();
        next.Engine.Start(again);
        again.AnswerThrough(next.Engine);
        Assert.True(waiting.Join(s_patience));
        Assert.Equal(TestPageSource.WordOf(7), read);
        Assert.Equal([7UL], again.Requested);
    }

    [Fact]
    public void A_page_that_was_placed_before_it_was_noted_keeps_what_the_guest_wrote()
    {
        using (var dead = new Side(this))
        {
            using var source = new TestPageSource();
            dead.Engine.Start(source);
            using PageLane lane = dead.Engine.CreateLane();
            TestPageSource.Deliver(lane, 3, 1);
            WriteWord(3, 42);

            // As if it had died between the placing and the noting.
            Assert.Equal(PageState.Present, dead.Engine.States.Change(3, PageState.Present, PageState.Arriving));
            Assert.Equal(PageState.Absent, dead.Engine.States.Change(4, PageState.Absent, PageState.Arriving));
        }

        using var next = new Side(this, takesOver: true);
        Assert.Equal(PageState.Present, next.Engine.States[3]);
        Assert.Equal(PageState.Absent, next.Engine.States[4]);
        Assert.Equal((long)Pages - 1, next.Engine.UnknownPages);
        using var again = new TestPageSource();
        next.Engine.Start(again);
        again.AnswerThrough(next.Engine);
        Assert.Equal(42UL, ReadWord(3));
        Assert.Equal(TestPageSource.WordOf(4), ReadWord(4));
        Assert.Equal([4UL], again.Requested);
    }

    [Fact]
    public void A_page_that_comes_again_after_it_was_placed_is_not_written_over()
    {
        using (var dead = new Side(this))
        {
            using var source = new TestPageSource();
            dead.Engine.Start(source);
            using PageLane lane = dead.Engine.CreateLane();
            TestPageSource.Deliver(lane, 3, 1);
            WriteWord(3, 42);
        }

        using var next = new Side(this, takesOver: true);
        using var again = new TestPageSource();
        next.Engine.Start(again);

        // The worst that a wrong state could do: the kernel refuses to place what is there.
        Assert.Equal(PageState.Present, next.Engine.States.Change(3, PageState.Present, PageState.Absent));
        using PageLane lane2 = next.Engine.CreateLane();
        TestPageSource.Deliver(lane2, 3, 1);
        Assert.Equal(PageState.Present, next.Engine.States[3]);
        Assert.Equal(42UL, ReadWord(3));
    }

    [Fact]
    public void What_was_zero_or_removed_stays_so()
    {
        using (var dead = new Side(this))
        {
            using var source = new TestPageSource();
            dead.Engine.Start(source);
            using PageLane lane = dead.Engine.CreateLane();
            Assert.Equal(2UL, lane.Zero(10, 2));
            Assert.Equal(PageState.Absent, dead.Engine.States.Change(20, PageState.Absent, PageState.ArrivingRemoved));
            Assert.Equal(PageState.Absent, dead.Engine.States.Change(21, PageState.Absent, PageState.Removed));
        }

        using var next = new Side(this, takesOver: true);
        Assert.Equal((long)Pages - 4, next.Engine.UnknownPages);
        using var again = new TestPageSource();
        next.Engine.Start(again);
        foreach (ulong page in (ulong[])[10, 11, 20, 21])
        {
            Assert.Equal(0UL, ReadWord(page));
        }

        Assert.Empty(again.Requested);
    }

    [Fact]
    public void What_lies_in_the_file_under_an_armed_page_is_never_shown()
    {
        using (var dead = new Side(this))
        {
            using var source = new TestPageSource();
            dead.Engine.Start(source);
            _guest.HostViewOfPages(5, 1).Fill(0xee);
        }

        using var next = new Side(this, takesOver: true);
        using var again = new TestPageSource();
        next.Engine.Start(again);
        again.AnswerThrough(next.Engine);
        Assert.Equal(TestPageSource.WordOf(5), ReadWord(5));
    }

    [Fact]
    public void A_page_that_was_whole_and_lost_its_content_is_a_stall_that_is_reported()
    {
        using (var dead = new Side(this))
        {
            using var source = new TestPageSource();
            dead.Engine.Start(source);
            using PageLane lane = dead.Engine.CreateLane();
            TestPageSource.Deliver(lane, 3, 1);
        }

        _guest.DropContent(3, 1);
        using var next = new Side(this, takesOver: true);
        using var again = new TestPageSource();
        next.Engine.Start(again);
        var waiting = new Thread(() => _ = ReadWord(3)) { IsBackground = true };
        waiting.Start();
        Assert.True(next.Engine.Failed.Wait(s_patience));
        Assert.Contains("Page 3 was whole", next.Engine.Failed.Result.Message, StringComparison.Ordinal);
        Assert.True(waiting.IsAlive);
        _guest.Unregister();
        Assert.True(waiting.Join(s_patience));
    }

    [Fact]
    public void Nothing_is_given_back_while_an_engine_that_may_die_would_have_to_know()
    {
        _guest.Share().Dispose();
        _ = Assert.Throws<InvalidOperationException>(() => _guest.Remove(0, Page.Size));
        _guest.Unregister();
        _guest.Remove(0, Page.Size);
    }

    [Fact]
    public void States_that_this_build_does_not_know_are_refused()
    {
        BinaryPrimitives.WriteUInt64LittleEndian(_buffer.Span(8, 8), 0x9);
        var refusal = Assert.Throws<InvalidOperationException>(() => new Side(this, takesOver: true));
        Assert.Contains("newer build", refusal.Message, StringComparison.Ordinal);
    }

    private ulong ReadWord(ulong page)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        _guest.ReadAsGuest(page * Page.Size, word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }

    private void WriteWord(ulong page, ulong value)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(word, value);
        _guest.WriteAsGuest(page * Page.Size, word);
    }

    /// <summary>What an engine's process has of the guest's.</summary>
    private sealed class Side : IDisposable
    {
        private readonly GuestMemory _memory;

        internal Side(TakeoverTests test, bool takesOver = false)
        {
            _memory = GuestMemory.OfOwner(test._guest.Regions, GuestBacking.Memfd, test._guest.Share(), test._owner);
            try
            {
                var states = new PageStates(Pages, test._buffer, 0);
                Engine = takesOver ? FaultEngine.TakeOver(_memory, states, logger: null) : new FaultEngine(_memory, states, logger: null);
            }
            catch
            {
                _memory.Dispose();
                throw;
            }
        }

        internal FaultEngine Engine { get; }

        public void Dispose()
        {
            Engine.Dispose();
            _memory.Dispose();
        }
    }
}
