using System.Diagnostics;

namespace Pageferry.Linux.Tests;

public sealed class ProcessDescriptorTests : IDisposable
{
    private readonly Process _sleeper = Process.Start("sleep", ["600"]);

    public void Dispose()
    {
        _sleeper.Kill();
        _sleeper.WaitForExit();
        _sleeper.Dispose();
    }

    [Fact]
    public void A_process_is_ended_and_its_end_is_seen()
    {
        using var process = ProcessDescriptor.Open(_sleeper.Id);
        Assert.True(process.MayBeSignalled);
        Assert.False(process.HasEnded);
        Assert.False(process.Wait(1));
        process.Kill();
        Assert.True(process.Wait(-1));
        Assert.True(process.HasEnded);

        // Once more does no harm, also when its number is free.
        _sleeper.WaitForExit();
        process.Kill();
        Assert.True(process.HasEnded);
    }

    [Fact]
    public void A_process_that_is_not_there_is_said()
    {
        const int AbovePids = 1 << 22;
        LinuxException failure = Assert.Throws<LinuxException>(() => ProcessDescriptor.Open(AbovePids));
        Assert.Equal(Errno.ESRCH, failure.Errno);
    }

    [Fact]
    public void An_end_of_a_connection_is_seen_before_what_was_sent_is_read()
    {
        (UnixSocket one, UnixSocket other) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        using (one)
        {
            var poll = new Poll(one.Descriptor);
            other.Send([1]);
            Assert.Equal(1, poll.Wait(0));
            Assert.True(poll.IsReadable(0));
            Assert.False(poll.IsClosed(0));
            other.Dispose();
            Assert.Equal(1, poll.Wait(0));
            Assert.True(poll.IsClosed(0));
            Assert.Equal(1, one.Receive(stackalloc byte[8], [], out _));
        }
    }

    [Fact]
    public void A_process_is_told_who_it_is_as_its_peers_are() =>
        Assert.Equal(Environment.ProcessId, UnixPeer.OfThisProcess().ProcessId);
}
