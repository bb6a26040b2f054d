namespace Pageferry.Linux.Tests;

public class EventFdTests
{
    [Fact]
    public void A_signal_ends_a_wait_and_counts()
    {
        using var counter = new EventFd();
        using var other = new EventFd();
        var poll = new Poll(other.Descriptor, counter.Descriptor);
        Assert.Equal(0, poll.Wait(0));
        Assert.Equal(0UL, counter.Drain());
        var signaller = new Thread(() =>
        {
            Thread.Sleep(20);
            counter.Signal();
        });
        signaller.Start();
        Assert.Equal(1, poll.Wait(20_000));
        Assert.False(poll.IsReadable(0));
        Assert.True(poll.IsReadable(1));
        signaller.Join();
        counter.Signal();
        Assert.Equal(2UL, counter.Drain());
        Assert.Equal(0, poll.Wait(0));
    }

    [Fact]
    public void A_duplicate_is_the_same_counter()
    {
        using var counter = new EventFd();
        using FileDescriptor duplicate = counter.Descriptor.Duplicate();
        Assert.NotEqual(counter.Descriptor.Number, duplicate.Number);
        counter.Signal();
        Assert.Equal(1, new Poll(duplicate).Wait(0));
    }
}
