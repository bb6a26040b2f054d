namespace Pageferry.Linux.Tests;

public class UnixSocketTests
{
    [Fact]
    public void Descriptors_go_over_with_bytes()
    {
        (UnixSocket here, UnixSocket there) = UnixSocket.CreatePair();
        using (here)
        using (there)
        using (MemoryFile file = MemoryFile.Create("sent", 4096))
        using (var counter = new EventFd())
        {
            here.Send([1, 2, 3], file.Descriptor, counter.Descriptor);
            var bytes = new byte[16];
            Assert.Equal(3, there.Receive(bytes, out FileDescriptor[] received));
            Assert.Equal([1, 2, 3], bytes[..3]);
            Assert.Equal(2, received.Length);
            using MemoryFile copy = MemoryFile.FromDescriptor(received[0], "copy");
            Assert.Equal(4096UL, copy.Length);
            counter.Signal();
            Assert.Equal(1, new Poll(received[1]).Wait(0));
            received[1].Dispose();

            here.Send([4]);
            Assert.Equal(1, there.Receive(bytes, out received));
            Assert.Empty(received);
            here.Dispose();
            Assert.Equal(0, there.Receive(bytes, out _));
            Assert.Equal(Errno.EPIPE, Assert.Throws<LinuxException>(() => there.Send([5])).Errno);
        }
    }

    [Fact]
    public void As_many_descriptors_go_as_a_message_holds_and_no_more()
    {
        (UnixSocket here, UnixSocket there) = UnixSocket.CreatePair();
        using (here)
        using (there)
        {
            using var counter = new EventFd();
            here.Send([1], [.. Enumerable.Repeat(counter.Descriptor, UnixSocket.MaxDescriptors)]);
            _ = there.Receive(new byte[1], out FileDescriptor[] received);
            Assert.Equal(UnixSocket.MaxDescriptors, received.Length);
            Array.ForEach(received, descriptor => descriptor.Dispose());
            Assert.Throws<ArgumentException>(() => here.Send([1], [.. Enumerable.Repeat(counter.Descriptor, UnixSocket.MaxDescriptors + 1)]));
            Assert.Throws<ArgumentException>(() => here.Send([]));
        }
    }

    [Fact]
    public void A_path_is_listened_at_once_and_the_peer_is_known()
    {
        string folder = Directory.CreateTempSubdirectory("pageferry-socket-").FullName;
        try
        {
            string path = Path.Combine(folder, "a.sock");
            Assert.Equal(Errno.ENOENT, Assert.Throws<LinuxException>(() => UnixSocket.Connect(path)).Errno);
            using UnixSocket listener = UnixSocket.Listen(path);
            Assert.Equal(Errno.EADDRINUSE, Assert.Throws<LinuxException>(() => UnixSocket.Listen(path)).Errno);
            using UnixSocket client = UnixSocket.Connect(path);
            using UnixSocket server = listener.Accept();
            Assert.Equal(Environment.ProcessId, server.GetPeerCredentials().ProcessId);
            client.Send([7]);
            var bytes = new byte[1];
            Assert.Equal(1, server.Receive(bytes, out _));
            Assert.Equal(7, bytes[0]);
            listener.Dispose();
            Assert.Equal(Errno.ECONNREFUSED, Assert.Throws<LinuxException>(() => UnixSocket.Connect(path)).Errno);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void A_path_beyond_the_kernels_length_is_refused() =>
        Assert.Throws<ArgumentException>(() => UnixSocket.Listen("/tmp/" + new string('x', 110)));
}
