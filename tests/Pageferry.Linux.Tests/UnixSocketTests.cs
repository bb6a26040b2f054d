using System.Globalization;

namespace Pageferry.Linux.Tests;

public sealed class UnixSocketTests : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pageferry-socket-");

    private string SocketPath => Path.Combine(_directory.FullName, "socket");

    public static TheoryData<UnixSocketType> Types => new(Enum.GetValues<UnixSocketType>());

    public void Dispose() => _directory.Delete(recursive: true);

    [Theory]
    [MemberData(nameof(Types))]
    public void Descriptors_arrive_with_the_bytes_and_name_the_same_files(UnixSocketType type)
    {
        using var listening = UnixSocket.Listen(SocketPath, type);
        using var client = UnixSocket.Connect(SocketPath, type);
        using UnixSocket server = listening.Accept();
        using var file = MemoryFile.Create("test", 4096);
        using var counter = new EventFd();
        client.Send("hello"u8, file.Descriptor, counter.Descriptor);

        var bytes = new byte[64];
        var descriptors = new FileDescriptor?[3];
        Assert.Equal(5, server.Receive(bytes, descriptors, out int count));
        Assert.Equal("hello"u8, bytes.AsSpan(0, 5));
        Assert.Equal(2, count);
        Assert.Null(descriptors[2]);
        using var received = MemoryFile.FromDescriptor(descriptors[0]!, "received");
        Assert.Equal(file.Length, received.Length);
        Assert.NotEqual(file.Descriptor.Number, received.Descriptor.Number);
        const int GetFlags = 1; // F_GETFD
        const int CloseOnExec = 1; // FD_CLOEXEC
        Assert.Equal(CloseOnExec, Interop.Fcntl(received.Descriptor.Number, GetFlags, 0));
        counter.Signal();
        using FileDescriptor sameCounter = descriptors[1]!;
        Assert.Equal(1, new Poll(sameCounter).Wait(0));

        server.Send([1]);
        Assert.Equal(1, client.Receive(bytes, descriptors, out count));
        Assert.Equal(0, count);
        client.Dispose();
        Assert.Equal(0, server.Receive(bytes, descriptors, out count));
        Assert.Equal(0, count);
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

    [Fact]
    public void A_program_that_is_started_has_a_socket_that_is_kept_for_it_and_no_other()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        using (ours)
        {
            using (theirs)
            {
                using FileDescriptor kept = theirs.Descriptor.DuplicateForPrograms();
                string script = $"printf kept >&{kept.Number}; printf leaked >&{ours.Descriptor.Number}";
                using var child = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("/bin/bash", ["-c", script]) { UseShellExecute = false, RedirectStandardError = true })!;
                child.WaitForExit();
                Assert.NotEqual(0, child.ExitCode);
            }

            var bytes = new byte[64];
            Assert.Equal(4, ours.Receive(bytes, [], out _));
            Assert.Equal("kept"u8, bytes.AsSpan(0, 4));
            Assert.Equal(0, ours.Receive(bytes, [], out _));
            using var again = UnixSocket.FromDescriptor(ours.Descriptor.Duplicate());
            Assert.Equal(0, again.Receive(bytes, [], out _));
        }
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 2)]
    [InlineData(2, 3)]
    [InlineData(3, 200)]
    public void More_descriptors_than_allowed_are_an_error_and_are_closed(int allowed, int sent)
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (first)
        using (second)
        {
            using var file = MemoryFile.Create("test of more descriptors", 4096);
            first.Send([1], Enumerable.Repeat(file.Descriptor, sent).ToArray());
            var descriptors = new FileDescriptor?[allowed];
            LinuxException failure = Assert.Throws<LinuxException>(() => second.Receive(new byte[1], descriptors, out _));
            Assert.Equal(Errno.EMSGSIZE, failure.Errno);
            Assert.Contains($"{allowed} file descriptors", failure.Message, StringComparison.Ordinal);
            Assert.All(descriptors, Assert.Null);
            Assert.Equal(1, OpenCount("test of more descriptors"));

            // The connection goes on.
            first.Send([2]);
            var bytes = new byte[1];
            Assert.Equal(1, second.Receive(bytes, descriptors, out _));
            Assert.Equal(2, bytes[0]);
        }
    }

    [Fact]
    public void What_is_looked_at_stays_there_with_duplicates_of_its_descriptors()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (first)
        using (second)
        {
            using var file = MemoryFile.Create("test of looking", 4096);
            first.Send([1, 2, 3, 4]);
            var bytes = new byte[8];
            var descriptors = new FileDescriptor?[1];
            Assert.Equal(4, second.Peek(bytes, descriptors, out int count));
            Assert.Equal(0, count);

            // It looks over messages, to the end of the first that descriptors come with.
            first.Send([5], file.Descriptor);
            first.Send([6]);
            Assert.Equal(5, second.Peek(bytes, descriptors, out count));
            Assert.Equal(1, count);
            Assert.Equal([1, 2, 3, 4, 5], bytes[..5]);
            Assert.Equal(2, OpenCount("test of looking"));
            descriptors[0]!.Dispose();
            Assert.Equal(5, second.Receive(bytes, descriptors, out count));
            Assert.Equal(1, count);
            Assert.Equal(2, OpenCount("test of looking"));
            descriptors[0]!.Dispose();
            Assert.Equal(1, second.Receive(bytes, descriptors, out count));
            first.Dispose();
            Assert.Equal(0, second.Peek(bytes, descriptors, out count));
        }
    }

    [Fact]
    public void As_many_descriptors_as_the_kernel_takes_arrive()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        using (first)
        using (second)
        {
            using var counter = new EventFd();
            first.Send([1], Enumerable.Repeat(counter.Descriptor, UnixSocket.MaxDescriptors).ToArray());
            var descriptors = new FileDescriptor?[UnixSocket.MaxDescriptors];
            Assert.Equal(1, second.Receive(new byte[1], descriptors, out int count));
            Assert.Equal(UnixSocket.MaxDescriptors, count);
            Assert.All(descriptors, descriptor => descriptor!.Dispose());
            Assert.Throws<ArgumentOutOfRangeException>(
                () => first.Send([1], Enumerable.Repeat(counter.Descriptor, UnixSocket.MaxDescriptors + 1).ToArray()));
            Assert.Throws<ArgumentOutOfRangeException>(() => first.Send([], counter.Descriptor));
            Assert.Throws<ArgumentOutOfRangeException>(() => second.Receive(default, descriptors, out _));
        }
    }

    [Fact]
    public void A_packet_longer_than_the_room_is_an_error_and_its_descriptors_are_closed()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        using (first)
        using (second)
        {
            using var file = MemoryFile.Create("test of a long packet", 4096);
            first.Send([1, 2, 3], file.Descriptor);
            var descriptors = new FileDescriptor?[1];
            Assert.Equal(Errno.EMSGSIZE, Assert.Throws<LinuxException>(() => second.Receive(new byte[2], descriptors, out _)).Errno);
            Assert.Null(descriptors[0]);
            Assert.Equal(1, OpenCount("test of a long packet"));
        }
    }

    [Fact]
    public void A_stream_is_sent_whole_and_the_descriptors_once()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (first)
        using (second)
        {
            byte[] sent = new byte[4 << 20];
            new Random(1).NextBytes(sent);
            using var counter = new EventFd();
            var sender = new Waiter<bool>(() =>
            {
                first.Send(sent, counter.Descriptor);
                first.Dispose();
                return true;
            });
            var received = new MemoryStream();
            var bytes = new byte[100_000];
            var descriptors = new FileDescriptor?[2];
            int total = 0;
            while (second.Receive(bytes, descriptors, out int count) is > 0 and int length)
            {
                received.Write(bytes, 0, length);
                total += count;
            }

            Assert.True(sender.Finish());
            Assert.Equal(sent, received.ToArray());
            Assert.Equal(1, total);
            descriptors[0]!.Dispose();
        }
    }

    [Fact]
    public void The_peer_is_who_the_kernel_says()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (first)
        using (second)
        {
            Assert.Equal(new UnixPeer(Environment.ProcessId, EffectiveId("Uid:"), EffectiveId("Gid:")), first.GetPeer());
        }
    }

    [Fact]
    public void Failures_have_the_path_and_the_errnos_name()
    {
        LinuxException missing = Assert.Throws<LinuxException>(() => UnixSocket.Connect(SocketPath, UnixSocketType.Stream));
        Assert.StartsWith($"Could not connect to {SocketPath}: ENOENT", missing.Message, StringComparison.Ordinal);
        using (var listening = UnixSocket.Listen(SocketPath, UnixSocketType.Stream))
        {
            Assert.Equal(Errno.EPROTOTYPE, Assert.Throws<LinuxException>(() => UnixSocket.Connect(SocketPath, UnixSocketType.SequencedPackets)).Errno);
            Assert.Equal(Errno.EADDRINUSE, Assert.Throws<LinuxException>(() => UnixSocket.Listen(SocketPath, UnixSocketType.Stream)).Errno);
            using var client = UnixSocket.Connect(SocketPath, UnixSocketType.Stream);
            Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(client.Accept).Errno);
        }

        // A process that somebody else starts just now has the descriptor until it runs its program.
        Errno? errno = null;
        Assert.True(SpinWait.SpinUntil(() => (errno = ErrnoOfConnecting()) is not null, TimeSpan.FromSeconds(30)));
        Assert.Equal(Errno.ECONNREFUSED, errno);
        Assert.Throws<ArgumentException>(() => UnixSocket.Connect(new string('x', 108), UnixSocketType.Stream));
        Assert.Throws<ArgumentException>(() => UnixSocket.Connect("a\0b", UnixSocketType.Stream));
        Assert.Throws<ArgumentException>(() => UnixSocket.Listen("", UnixSocketType.Stream));
    }

    [Fact]
    public void Sending_to_a_peer_that_is_gone_is_an_error_and_no_signal()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.Stream);
        second.Dispose();
        using (first)
        {
            Assert.Equal(Errno.EPIPE, Assert.Throws<LinuxException>(() => first.Send([1])).Errno);
        }
    }

    [Fact]
    public void The_longest_path_works()
    {
        string path = Path.Combine(_directory.FullName, new string('x', 106 - _directory.FullName.Length));
        Assert.Equal(107, path.Length);
        using var listening = UnixSocket.Listen(path, UnixSocketType.Stream);
        using var client = UnixSocket.Connect(path, UnixSocketType.Stream);
        using UnixSocket server = listening.Accept();
        Assert.Equal(Environment.ProcessId, server.GetPeer().ProcessId);
    }

    private Errno? ErrnoOfConnecting()
    {
        try
        {
            UnixSocket.Connect(SocketPath, UnixSocketType.Stream).Dispose();
            return null;
        }
        catch (LinuxException failure)
        {
            return failure.Errno;
        }
    }

    private static int OpenCount(string memoryFile) =>
        Directory.EnumerateFileSystemEntries("/proc/self/fd").Count(fd => new FileInfo(fd).LinkTarget?.Contains(memoryFile, StringComparison.Ordinal) == true);

    private static uint EffectiveId(string line) => uint.Parse(
        File.ReadLines("/proc/self/status").Single(status => status.StartsWith(line, StringComparison.Ordinal)).Split('\t')[2],
        CultureInfo.InvariantCulture);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Datagrams_go_to_a_path_and_to_an_abstract_name(bool isAbstract)
    {
        string address = isAbstract ? $"@{SocketPath}" : SocketPath;
        Assert.Equal(isAbstract ? Errno.ECONNREFUSED : Errno.ENOENT, Assert.Throws<LinuxException>(() => UnixSocket.ConnectDatagrams(address)).Errno);
        using var receiving = new System.Net.Sockets.Socket(System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Dgram, System.Net.Sockets.ProtocolType.Unspecified);
        receiving.Bind(new System.Net.Sockets.UnixDomainSocketEndPoint(isAbstract ? $"\0{SocketPath}" : SocketPath));
        using (var sending = UnixSocket.ConnectDatagrams(address))
        {
            Assert.True(sending.TrySendPacket("one"u8));
            Assert.True(sending.TrySendPacket("two"u8));
        }

        var bytes = new byte[64];
        Assert.Equal(3, receiving.Receive(bytes));
        Assert.Equal("one"u8, bytes.AsSpan(0, 3));
        Assert.Equal(3, receiving.Receive(bytes));
        Assert.Equal("two"u8, bytes.AsSpan(0, 3));
    }
}
