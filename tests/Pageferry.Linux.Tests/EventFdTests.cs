namespace Pageferry.Linux.Tests;

public class EventFdTests
{
    [Fact]
    public void Signals_are_counted_until_they_are_taken()
    {
        using var counter = new EventFd();
        Assert.Equal(0UL, counter.Drain());
        counter.Signal();
        counter.Signal();
        Assert.Equal(2UL, counter.Drain());
        Assert.Equal(0UL, counter.Drain());
    }

    [Fact]
    public void A_poll_says_which_descriptor_has_something()
    {
        using var first = new EventFd();
        using var second = new EventFd();
        var poll = new Poll(first.Descriptor, second.Descriptor);
        Assert.Equal(0, poll.Wait(0));
        second.Signal();
        Assert.Equal(1, poll.Wait(-1));
        Assert.False(poll.IsReadable(0));
        Assert.True(poll.IsReadable(1));
        first.Signal();
        Assert.Equal(2, poll.Wait(0));
        second.Drain();
        Assert.Equal(1, poll.Wait(0));
        Assert.True(poll.IsReadable(0));
        Assert.False(poll.IsReadable(1));
    }

    [Fact]
    public void A_poll_is_woken_by_another_thread()
    {
        using var counter = new EventFd();
        var poll = new Poll(counter.Descriptor);
        var waiter = new Waiter<int>(() => poll.Wait(-1));
        waiter.AssertWaits();
        counter.Signal();
        Assert.Equal(1, waiter.Finish());
    }

    [Fact]
    public void A_poll_ends_after_its_time()
    {
        using var counter = new EventFd();
        long start = Environment.TickCount64;
        Assert.Equal(0, new Poll(counter.Descriptor).Wait(50));
        Assert.InRange(Environment.TickCount64 - start, 40, 10_000);
    }

    [Fact]
    public void An_end_is_something_to_read()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (first)
        {
            var poll = new Poll(first.Descriptor);
            Assert.Equal(0, poll.Wait(0));
            second.Dispose();
            Assert.Equal(1, poll.Wait(0));
            Assert.True(poll.IsReadable(0));
        }
    }

    [Fact]
    public void Waiting_and_signalling_allocate_nothing()
    {
        using var counter = new EventFd();
        var poll = new Poll(counter.Descriptor);
        Pass();
        long before = GC.GetAllocatedBytesForCurrentThread();
        Pass();
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());

        void Pass()
        {
            counter.Signal();
            poll.Wait(0);
            counter.Drain();
        }
    }
}
