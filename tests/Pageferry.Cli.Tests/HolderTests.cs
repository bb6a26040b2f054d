using System.Globalization;
using CsCheck;
using Pageferry.Linux;

namespace Pageferry.Cli.Tests;

public sealed class HolderTests : IDisposable
{
    private static readonly byte[] s_secret = HolderClient.CreateSecret();

    private readonly string _counted = $"counted-{Guid.NewGuid():N}";
    private readonly TemporaryDirectory _directory = new();
    private readonly List<(EventFd End, Thread Thread)> _running = [];

    private string SocketPath => _directory.Path("holder.sock");

    public void Dispose()
    {
        foreach ((EventFd end, Thread thread) in _running)
        {
            end.Signal();
            thread.Join();
            end.Dispose();
        }

        _directory.Dispose();
    }

    [Fact]
    public void What_was_let_go_of_outlives_its_connection_and_is_the_same_file()
    {
        Start();
        using var file = MemoryFile.Create("test", 3 * 4096);
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("guest", s_secret, HoldStage.Offered, "layout"u8, file.Descriptor);
            first.Advance("guest", s_secret, HoldStage.LetGo);
        }

        using var second = HolderClient.Connect(SocketPath);
        HeldRecord record = Await(() => second.Take("guest", s_secret));
        Assert.Equal(HoldStage.LetGo, record.Stage);
        Assert.Equal("layout"u8, record.Blob);
        using var taken = MemoryFile.FromDescriptor(Assert.Single(record.Descriptors), "taken");
        Assert.Equal(file.Length, taken.Length);
        Assert.Equal(Inode(file.Descriptor), Inode(taken.Descriptor));
    }

    [Theory]
    [InlineData((int)HoldStage.Offered)]
    [InlineData((int)HoldStage.Burnt)]
    public void What_was_not_let_go_of_or_is_burnt_goes_with_its_connection_and_is_closed(int stage)
    {
        Start();
        using var counter = MemoryFile.Create(_counted, (ulong)Environment.SystemPageSize);
        int before = OpenFiles();
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("guest", s_secret, HoldStage.Offered, [], counter.Descriptor);
            first.Advance("guest", s_secret, (HoldStage)stage);
            using var other = HolderClient.Connect(SocketPath);
            Assert.Equal(HoldAnswer.Taken, Refusal(() => other.Take("guest", s_secret)));
        }

        Await(() =>
        {
            using var second = HolderClient.Connect(SocketPath);
            Assert.Equal(HoldAnswer.Unknown, Refusal(() => second.Take("guest", s_secret)));
            return true;
        });
        Await(() => OpenFiles() <= before ? true : throw new HolderException(HoldAnswer.Taken, "not closed yet"));
    }

    [Fact]
    public void Nobody_gets_what_a_living_connection_has()
    {
        Start();
        using var first = HolderClient.Connect(SocketPath);
        using var second = HolderClient.Connect(SocketPath);
        first.Put("guest", s_secret, HoldStage.LetGo, []);
        Assert.Equal(HoldAnswer.Taken, Refusal(() => second.Take("guest", s_secret)));
        Assert.Equal(HoldAnswer.Taken, Refusal(() => second.Advance("guest", s_secret, HoldStage.Burnt)));
        Assert.Equal(HoldAnswer.Taken, Refusal(() => second.Drop("guest", s_secret)));
        Assert.Equal(HoldAnswer.Taken, Refusal(() => second.Put("guest", s_secret, HoldStage.LetGo, [])));
        Assert.Equal(HoldAnswer.Taken, Refusal(() => second.Put("guest", HolderClient.CreateSecret(), HoldStage.LetGo, [])));
        first.Dispose();
        _ = Await(() => second.Take("guest", s_secret));
        second.Drop("guest", s_secret);
        Assert.Equal(HoldAnswer.Unknown, Refusal(() => second.Take("guest", s_secret)));
    }

    [Fact]
    public void Nothing_is_done_with_another_secret_or_before_it_is_taken_and_no_stage_is_gone_back_to()
    {
        Start();
        using var client = HolderClient.Connect(SocketPath);
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("guest", s_secret, HoldStage.LetGo, []);
        }

        Await(() => Refusal(() => client.Advance("guest", s_secret, HoldStage.LetGo)) == HoldAnswer.NotTaken ? true : throw new HolderException(HoldAnswer.Taken, "not parted yet"));
        Assert.Equal(HoldAnswer.NotTaken, Refusal(() => client.Drop("guest", s_secret)));
        Assert.Equal(HoldAnswer.Taken, Refusal(() => client.Put("guest", s_secret, HoldStage.LetGo, [])));
        byte[] wrong = [.. s_secret];
        wrong[^1] ^= 1;
        Assert.Equal(HoldAnswer.Unknown, Refusal(() => client.Take("guest", wrong)));
        Assert.Equal(HoldAnswer.Unknown, Refusal(() => client.Take("other", s_secret)));
        _ = Assert.Throws<IOException>(() => client.Burn("guest"));
        _ = client.Take("guest", s_secret);
        Assert.Equal(HoldAnswer.Backwards, Refusal(() => client.Advance("guest", s_secret, HoldStage.Offered)));
        client.Advance("guest", s_secret, HoldStage.Burnt);
        Assert.Equal(HoldAnswer.Backwards, Refusal(() => client.Advance("guest", s_secret, HoldStage.LetGo)));
    }

    [Fact]
    public void What_is_kept_is_replaced_by_the_connection_that_has_it()
    {
        Start();
        using var first = HolderClient.Connect(SocketPath);
        using var one = new EventFd();
        using var two = MemoryFile.Create("test", 4096);
        first.Put("guest", s_secret, HoldStage.LetGo, "one"u8, one.Descriptor);
        first.Put("guest", s_secret, HoldStage.LetGo, "two"u8, two.Descriptor, one.Descriptor);
        Assert.Equal(HoldAnswer.Backwards, Refusal(() => first.Put("guest", s_secret, HoldStage.Offered, "three"u8)));
        Assert.Equal(HoldAnswer.Taken, Refusal(() => first.Put("guest", HolderClient.CreateSecret(), HoldStage.LetGo, "four"u8)));
        Assert.Equal(HoldAnswer.Taken, Refusal(() => first.Take("guest", s_secret)));
        using var second = HolderClient.Connect(SocketPath);
        Assert.Equal(HoldAnswer.Taken, Refusal(() => second.Take("guest", s_secret)));
        first.Dispose();
        HeldRecord record = Await(() => second.Take("guest", s_secret));
        Assert.Equal("two"u8, record.Blob);
        Assert.Equal(2, record.Descriptors.Length);
        Assert.Equal(Inode(two.Descriptor), Inode(record.Descriptors[0]));
        Array.ForEach(record.Descriptors, descriptor => descriptor.Dispose());
    }

    [Fact]
    public async Task What_is_burnt_is_burnt_though_the_holder_stands_still_or_does_not_know_yet_that_it_was_let_go_of()
    {
        using PageferryProcess hold = PageferryProcess.Start("hold", "--socket", SocketPath);
        await hold.WaitUntilAsync(() => hold.Output.Length > 0, "the holder listens");
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("guest", s_secret, HoldStage.Offered, []);
            OtherProcess.Stop(hold.Pid);
            first.Burn("guest");
            OtherProcess.Continue(hold.Pid);
            Assert.Equal(HoldAnswer.Backwards, Refusal(() => first.Advance("guest", s_secret, HoldStage.LetGo)));
        }

        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("other", s_secret, HoldStage.LetGo, []);
            OtherProcess.Stop(hold.Pid);
            first.Burn("other");
        }

        OtherProcess.Continue(hold.Pid);
        using var second = HolderClient.Connect(SocketPath);
        foreach (string name in (string[])["guest", "other"])
        {
            Assert.True(Await(() => Refusal(() => second.Take(name, s_secret)) == HoldAnswer.Unknown ? true : throw new HolderException(HoldAnswer.Taken, "not parted yet")));
        }
    }

    [Fact]
    public void There_is_a_bound_for_names_and_for_descriptors()
    {
        Start();
        using var client = HolderClient.Connect(SocketPath);
        using var counter = new EventFd();
        FileDescriptor[] many = [.. Enumerable.Repeat(counter.Descriptor, HoldPacket.MostDescriptors)];
        for (int i = 0; i < Holder.MostDescriptors / HoldPacket.MostDescriptors; i++)
        {
            client.Put($"many{i}", s_secret, HoldStage.Offered, [], many);
        }

        Assert.Equal(HoldAnswer.Full, Refusal(() => client.Put("one-more", s_secret, HoldStage.Offered, [], counter.Descriptor)));
        client.Drop("many0", s_secret);
        client.Put("many0", s_secret, HoldStage.Offered, []);
        client.Put("one-more", s_secret, HoldStage.Offered, [], counter.Descriptor);
        client.Drop("one-more", s_secret);
        for (int i = Holder.MostDescriptors / HoldPacket.MostDescriptors; i < Holder.MostEntries; i++)
        {
            client.Put($"name{i}", s_secret, HoldStage.Offered, new byte[HoldPacket.MostBlob]);
        }

        Assert.Equal(HoldAnswer.Full, Refusal(() => client.Put("one-more", s_secret, HoldStage.Offered, [])));
    }

    [Fact]
    public void Connections_beyond_the_bound_are_closed_and_a_silent_one_makes_room()
    {
        Start(TimeSpan.FromMilliseconds(500));
        using var first = HolderClient.Connect(SocketPath);
        first.Put("guest", s_secret, HoldStage.LetGo, []);
        List<UnixSocket> silent = [.. Enumerable.Range(1, Holder.MostClients - 1).Select(_ => UnixSocket.Connect(SocketPath, UnixSocketType.SequencedPackets))];
        using (var beyond = UnixSocket.Connect(SocketPath, UnixSocketType.SequencedPackets))
        {
            AssertClosed(beyond);
        }

        silent.ForEach(socket =>
        {
            AssertClosed(socket);
            socket.Dispose();
        });

        // The one that has something may be silent.
        first.Advance("guest", s_secret, HoldStage.LetGo);
    }

    [Fact]
    public void A_client_that_reads_no_answers_holds_nobody_up()
    {
        Start();
        using var deaf = UnixSocket.Connect(SocketPath, UnixSocketType.SequencedPackets);
        byte[] question = HoldPacket.Ask(HoldVerb.Take, "nothing", s_secret, default, []);
        bool isClosed = false;
        for (int i = 0; i < 100_000 && !isClosed; i++)
        {
            try
            {
                if (!deaf.TrySendPacket(question))
                {
                    Thread.Sleep(1);
                }
            }
            catch (LinuxException e) when (e.Errno is Errno.EPIPE or Errno.ECONNRESET)
            {
                isClosed = true;
            }
        }

        Assert.True(isClosed);
        using var client = HolderClient.Connect(SocketPath);
        client.Put("guest", s_secret, HoldStage.LetGo, []);
    }

    [Fact]
    public void Any_packet_is_answered_or_its_connection_closed_and_the_holder_lives()
    {
        Start();
        Gen.Select(Gen.Byte.Array[0, 120], Gen.Bool).Sample(
            (bytes, isNearly) =>
            {
                byte[] packet = bytes;
                if (isNearly)
                {
                    // A question with some bytes changed.
                    packet = HoldPacket.Ask(HoldVerb.Put, "guest", s_secret, HoldStage.Offered, "blob"u8);
                    for (int i = 0; i + 1 < bytes.Length && i < 4; i += 2)
                    {
                        packet[bytes[i] % packet.Length] = bytes[i + 1];
                    }
                }

                using var stranger = UnixSocket.Connect(SocketPath, UnixSocketType.SequencedPackets);
                stranger.Send(packet.Length == 0 ? [0] : packet);
                Assert.Equal(1, new Poll(stranger.Descriptor).Wait(10_000));
                var answer = new byte[64];
                var claim = new FileDescriptor?[1];
                Assert.True(stranger.Receive(answer, claim, out _) is 0 or HoldPacket.HeaderBytes);
                claim[0]?.Dispose();
            },
            iter: 500,
            threads: 1);
        using var client = HolderClient.Connect(SocketPath);
        client.Put("last", s_secret, HoldStage.LetGo, []);
    }

    [Fact]
    public void Descriptors_that_come_with_a_wrong_packet_are_closed()
    {
        Start();
        using var counter = MemoryFile.Create(_counted, (ulong)Environment.SystemPageSize);
        byte[] put = HoldPacket.Ask(HoldVerb.Put, "guest", s_secret, HoldStage.LetGo, []);
        byte[] take = HoldPacket.Ask(HoldVerb.Take, "guest", s_secret, default, []);
        byte[] tooLong = [.. put, .. new byte[HoldPacket.MostBlob + 1]];
        byte[] newer = [.. put];
        newer[0]++;
        int before = OpenFiles();
        foreach (byte[] packet in (byte[][])[take, tooLong, newer, [.. tooLong, .. tooLong]])
        {
            using var stranger = UnixSocket.Connect(SocketPath, UnixSocketType.SequencedPackets);
            stranger.Send(packet, counter.Descriptor);
            AssertClosed(stranger);
        }

        using (var stranger = UnixSocket.Connect(SocketPath, UnixSocketType.SequencedPackets))
        {
            stranger.Send(put, [.. Enumerable.Repeat(counter.Descriptor, HoldPacket.MostDescriptors + 1)]);
            AssertClosed(stranger);
        }

        Await(() => OpenFiles() <= before ? true : throw new HolderException(HoldAnswer.Taken, "not closed yet"));
    }

    [Theory]
    [InlineData("", false)]
    [InlineData("guest", true)]
    [InlineData("a.b-c_9", true)]
    [InlineData(".hidden", false)]
    [InlineData("a/b", false)]
    [InlineData("ä", false)]
    public void A_name_is_one_that_a_file_can_have(string name, bool isOne) => Assert.Equal(isOne, HoldPacket.IsName(name));

    [Fact]
    public void Only_the_owner_can_connect_and_the_socket_is_removed_at_the_end()
    {
        Start();
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(SocketPath));
        (EventFd end, Thread thread) = _running[0];
        end.Signal();
        thread.Join();
        Assert.False(Path.Exists(SocketPath));
    }

    [Fact]
    public void A_path_that_is_taken_is_refused_and_one_that_was_left_is_not()
    {
        Start();
        CommandException refused = Assert.Throws<CommandException>(() => Holder.Listen(SocketPath));
        Assert.Contains("a holder listens there already", refused.Message, StringComparison.Ordinal);
        string precious = _directory.Path("precious");
        File.WriteAllText(precious, "precious");
        refused = Assert.Throws<CommandException>(() => Holder.Listen(precious));
        Assert.Contains("left as it is", refused.Message, StringComparison.Ordinal);
        Assert.Equal("precious", File.ReadAllText(precious));
        string left = _directory.Path("left");
        UnixSocket.Listen(left, UnixSocketType.SequencedPackets).Dispose();
        Holder.Listen(left).Dispose();
    }

    [Fact]
    public async Task The_command_keeps_what_a_process_that_is_gone_had()
    {
        using PageferryProcess hold = PageferryProcess.Start("hold", "--socket", SocketPath);
        await hold.WaitUntilAsync(() => hold.Output.Length > 0, "the holder listens");
        using var counter = new EventFd();
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("guest", s_secret, HoldStage.LetGo, "blob"u8, counter.Descriptor);
        }

        using var second = HolderClient.Connect(SocketPath);
        HeldRecord record = Await(() => second.Take("guest", s_secret));
        counter.Signal();
        Assert.Equal(1, new Poll(Assert.Single(record.Descriptors)).Wait(0));
        record.Descriptors[0].Dispose();
        hold.Signal("TERM");
        await hold.WaitForExitAsync();
        Assert.False(Path.Exists(SocketPath));
        HolderException gone = Assert.Throws<HolderException>(() => second.Drop("guest", s_secret));
        Assert.Null(gone.Answer);
        gone = Assert.Throws<HolderException>(() => HolderClient.Connect(SocketPath));
        Assert.Contains("Start one first: pageferry hold", gone.Message, StringComparison.Ordinal);
    }

    private static void AssertClosed(UnixSocket socket)
    {
        Assert.Equal(1, new Poll(socket.Descriptor).Wait(10_000));
        try
        {
            var answer = new byte[64];
            while (socket.Receive(answer, [], out _) > 0)
            {
                Assert.Equal((byte)HoldAnswer.Malformed, answer[1]);
            }
        }
        catch (LinuxException e) when (e.Errno == Errno.ECONNRESET)
        {
            // Closed with something unread.
        }
    }

    private static HoldAnswer? Refusal(Action ask) => Assert.Throws<HolderException>(ask).Answer;

    private static string Inode(FileDescriptor descriptor) =>
        File.ReadLines(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fdinfo/{descriptor.Number}")).Single(line => line.StartsWith("ino:", StringComparison.Ordinal));

    /// <summary>How often this process, which the holder's thread is in, has the counted file open.</summary>
    private int OpenFiles() => Directory.GetFiles("/proc/self/fd").Count(file => new FileInfo(file).LinkTarget?.Contains(_counted, StringComparison.Ordinal) == true);

    /// <summary>The holder learns of an end when the kernel tells it.</summary>
    private static T Await<T>(Func<T> ask)
    {
        for (int tries = 0; ; tries++)
        {
            try
            {
                return ask();
            }
            catch (Exception e) when (tries < 500 && e is HolderException or Xunit.Sdk.XunitException)
            {
                Thread.Sleep(10);
            }
        }
    }

    private void Start(TimeSpan? patience = null)
    {
        var holder = Holder.Listen(SocketPath, patience);
        var end = new EventFd();
        var thread = new Thread(() =>
        {
            using (holder)
            {
                holder.Run(end.Descriptor);
            }
        });
        thread.Start();
        _running.Add((end, thread));
    }
}
