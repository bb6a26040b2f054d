using System.Globalization;
using Microsoft.Win32.SafeHandles;
using Pageferry.Linux;

namespace Pageferry.Cli.Tests;

/// <summary>What a holder keeps outlives it where a service manager stores it, and never so that two get it.</summary>
public sealed class HolderStoreTests : IDisposable
{
    private static readonly byte[] s_secret = HolderClient.CreateSecret();

    private readonly TemporaryDirectory _directory = new();
    private readonly StoringManager _manager;
    private Thread? _thread;
    private EventFd? _end;

    public HolderStoreTests() => _manager = new StoringManager(_directory.Path("notify"));

    private string SocketPath => _directory.Path("holder.sock");

    public void Dispose()
    {
        Stop();
        _manager.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void What_was_let_go_of_comes_back_whole_in_the_next_holder_and_goes_to_one()
    {
        Assert.Empty(Start());
        using var counter = new EventFd();
        using var file = MemoryFile.Create("test", 3 * 4096);
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("guest.1", s_secret, HoldStage.Offered, "layout"u8, counter.Descriptor, file.Descriptor);
            AwaitStored("guest.1.0", "guest.1.1", "guest.1.2");
            first.Advance("guest.1", s_secret, HoldStage.LetGo);
        }

        Stop();
        for (int restarts = 0; restarts < 2; restarts++)
        {
            Assert.Empty(Start());
            using (var second = HolderClient.Connect(SocketPath))
            {
                Assert.Equal(HoldAnswer.Unknown, Refusal(() => second.Take("guest.1", HolderClient.CreateSecret())));
                HeldRecord record = second.Take("guest.1", s_secret);
                Assert.Equal(HoldStage.LetGo, record.Stage);
                Assert.Equal("layout"u8, record.Blob);
                Assert.Equal(2, record.Descriptors.Length);
                Assert.Equal(Inode(counter.Descriptor), Inode(record.Descriptors[0]));
                Assert.Equal(Inode(file.Descriptor), Inode(record.Descriptors[1]));
                Array.ForEach(record.Descriptors, descriptor => descriptor.Dispose());
                using var third = HolderClient.Connect(SocketPath);
                Assert.Equal(HoldAnswer.Taken, Refusal(() => third.Take("guest.1", s_secret)));
            }

            Stop();
        }

        Assert.Empty(Start());
        using var last = HolderClient.Connect(SocketPath);
        Array.ForEach(last.Take("guest.1", s_secret).Descriptors, descriptor => descriptor.Dispose());
        last.Drop("guest.1", s_secret);
        Stop();
        AwaitStored();
    }

    [Fact]
    public void What_is_stored_is_not_replaced()
    {
        _ = Start();
        using var client = HolderClient.Connect(SocketPath);
        client.Put("guest", s_secret, HoldStage.LetGo, "one"u8);
        Assert.Equal(HoldAnswer.NotReplaced, Refusal(() => client.Put("guest", s_secret, HoldStage.LetGo, "two"u8)));
        client.Dispose();
        Stop();
        Assert.Empty(Start());
        using var next = HolderClient.Connect(SocketPath);
        Assert.Equal("one"u8, next.Take("guest", s_secret).Blob);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Nobody_gets_from_the_next_holder_what_a_process_has_that_lives(bool wasTaken)
    {
        _ = Start();
        var first = HolderClient.Connect(SocketPath);
        first.Put("guest", s_secret, HoldStage.LetGo, []);
        if (wasTaken)
        {
            first.Dispose();
            first = HolderClient.Connect(SocketPath);
            _ = Await(() => first.Take("guest", s_secret));
        }

        Stop();
        Assert.Empty(Start());
        using var second = HolderClient.Connect(SocketPath);
        Assert.Equal(HoldAnswer.Taken, Refusal(() => second.Take("guest", s_secret)));
        Assert.True(first.IsEnded);
        first.Dispose();
        _ = second.Take("guest", s_secret);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_is_burnt_after_its_holder_has_ended_is_got_by_nobody(bool isBackAlready)
    {
        _ = Start();
        using var first = HolderClient.Connect(SocketPath);
        first.Put("guest", s_secret, HoldStage.LetGo, []);
        Stop();
        if (isBackAlready)
        {
            Assert.Empty(Start());
            AwaitStored("guest.0");
        }

        first.Burn("guest");
        first.Dispose();
        if (!isBackAlready)
        {
            Assert.Empty(Start());
        }

        using var second = HolderClient.Connect(SocketPath);
        Assert.Equal(HoldAnswer.Unknown, Refusal(() => second.Take("guest", s_secret)));
        AwaitStored();
    }

    [Theory]
    [InlineData((int)HoldStage.Offered)]
    [InlineData((int)HoldStage.Burnt)]
    public void What_was_not_let_go_of_or_is_burnt_does_not_come_back(int stage)
    {
        _ = Start();
        using var file = MemoryFile.Create("test", 4096);
        using var first = HolderClient.Connect(SocketPath);
        first.Put("guest", s_secret, HoldStage.Offered, [], file.Descriptor);
        first.Advance("guest", s_secret, (HoldStage)stage);
        AwaitStored("guest.0", "guest.1");

        // As a holder that is killed leaves it.
        List<(string Name, FileDescriptor Descriptor)> left = _manager.Hand();
        Stop();
        Assert.Empty(Start(left));
        using var second = HolderClient.Connect(SocketPath);
        Assert.Equal(HoldAnswer.Unknown, Refusal(() => second.Take("guest", s_secret)));
        AwaitStored();
    }

    [Fact]
    public void What_goes_with_its_connection_goes_from_the_store()
    {
        _ = Start();
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("offered", s_secret, HoldStage.Offered, []);
            first.Put("burnt", s_secret, HoldStage.LetGo, []);
            first.Put("dropped", s_secret, HoldStage.LetGo, []);
            first.Burn("burnt");
            first.Drop("dropped", s_secret);
            first.Put("kept", s_secret, HoldStage.LetGo, []);
        }

        AwaitStored("kept.0");
    }

    [Fact]
    public void What_the_store_has_no_room_for_is_refused_and_nothing_of_it_stays()
    {
        using var small = new StoringManager($"@{_directory.Path("small")}", most: 3);
        Assert.True(new ServiceManager(small.Address).TryStore());
        _ = Start([], small);
        using var client = HolderClient.Connect(SocketPath);
        using var one = new EventFd();
        using var two = new EventFd();
        HolderException refused = Assert.Throws<HolderException>(() => client.Put("guest", s_secret, HoldStage.Offered, [], one.Descriptor, two.Descriptor));
        Assert.Equal(HoldAnswer.NotStored, refused.Answer);
        Assert.Contains("FileDescriptorStoreMax=", refused.Message, StringComparison.Ordinal);
        Await(() => small.Names.Length == 0 ? true : throw new HolderException(null, "not removed yet"));
        client.Put("guest", s_secret, HoldStage.Offered, [], one.Descriptor);
        Await(() => small.Names is ["guest.0", "guest.1"] ? true : throw new HolderException(null, "the canary is there still"));
        using var none = new StoringManager(_directory.Path("none"), most: 0);
        Assert.False(new ServiceManager(none.Address).TryStore());
        Assert.False(new ServiceManager(_directory.Path("nobody")).TryStore());
    }

    [Fact]
    public void What_did_not_come_back_whole_is_refused_by_name_and_left_in_the_store()
    {
        _ = Start();
        using var one = new EventFd();
        using (var first = HolderClient.Connect(SocketPath))
        {
            first.Put("whole", s_secret, HoldStage.LetGo, [], one.Descriptor);
            first.Put("part", s_secret, HoldStage.LetGo, [], one.Descriptor);
            first.Put("headless", s_secret, HoldStage.LetGo, [], one.Descriptor);
            first.Put("twice", s_secret, HoldStage.LetGo, []);
        }

        Stop();
        List<(string Name, FileDescriptor Descriptor)> left = _manager.Hand();
        left.RemoveAll(one => one.Name is "part.1" or "headless.0");
        left.Add((string.Empty, one.Descriptor.Duplicate()));
        left.AddRange(_manager.Hand().FindAll(one => one.Name == "twice.0"));
        List<string> refused = [.. Start(left).Order(StringComparer.Ordinal)];
        Assert.Equal(4, refused.Count);
        Assert.Contains("'' was not taken back: the file that says what it is is missing", refused[0], StringComparison.Ordinal);
        Assert.Contains("'headless' was not taken back: the file that says what it is is missing", refused[1], StringComparison.Ordinal);
        Assert.Contains("'part' was not taken back: it has 1 descriptors, and 0 are there", refused[2], StringComparison.Ordinal);
        Assert.Contains("'twice' was not taken back: more than one is stored", refused[3], StringComparison.Ordinal);
        AwaitStored("headless.0", "headless.1", "part.0", "part.1", "twice.0", "whole.0", "whole.1");
        Assert.All(left, one => Assert.Equal(!one.Name.StartsWith("whole.", StringComparison.Ordinal), one.Descriptor.IsClosed));
        using var second = HolderClient.Connect(SocketPath);
        Assert.Equal(HoldAnswer.Unknown, Refusal(() => second.Take("part", s_secret)));
        Array.ForEach(second.Take("whole", s_secret).Descriptors, descriptor => descriptor.Dispose());
    }

    [Theory]
    [InlineData(0, 0, "no file of a record")]
    [InlineData(8, 2, "of version 2; this build knows version 1")]
    [InlineData(9, 0, "its lengths don't fit it")]
    [InlineData(9, 255, "its lengths don't fit it")]
    [InlineData(10, 255, "its lengths don't fit it")]
    [InlineData(12, 5, "its lengths don't fit it")]
    [InlineData(15, 255, "its lengths don't fit it")]
    [InlineData(64, '.', "its lengths don't fit it")]
    [InlineData(64, 'G', "it is 'Guest'")]
    public void A_record_that_was_changed_is_refused(int at, int value, string why)
    {
        using var file = HeldFile.Create("guest", s_secret, "blob"u8, 0);
        file.Advance(HoldStage.LetGo);
        using (var handle = new SafeFileHandle(file.Descriptor.Number, ownsHandle: false))
        {
            RandomAccess.Write(handle, [(byte)value], at);
        }

        Assert.Contains(why, Assert.Single(Start([("guest.0", file.Descriptor.Duplicate())])), StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_no_file_of_a_record_is_refused()
    {
        using var counter = new EventFd();
        using var changing = MemoryFile.Create("test", 4096);
        using var small = MemoryFile.CreateFixed("test", 1);
        using var big = MemoryFile.CreateFixed("test", 1UL << 40);
        FileDescriptor[] none = [counter.Descriptor, changing.Descriptor, small.Descriptor, big.Descriptor];
        List<string> refused = Start(none.Select((descriptor, i) => ($"guest{i}.0", descriptor.Duplicate())));
        Assert.Equal(none.Length, refused.Count);
        Assert.All(refused, why => Assert.Contains("it is no file of a record", why, StringComparison.Ordinal));
    }

    [Fact]
    public void What_is_left_of_a_manager_that_was_away_is_removed_before_anything_else_is_stored()
    {
        var manager = new ServiceManager(_directory.Path("later"));
        manager.Remove("old");
        using var later = new StoringManager(_directory.Path("later"));
        using var counter = new EventFd();
        Assert.True(manager.TryStore(("new", counter.Descriptor)));
        Assert.Equal("FDSTOREREMOVE=1 FDNAME=old", later.Told.First());
        Await(() => later.Names is ["new"] ? true : throw new HolderException(null, "not removed yet"));
    }

    [Fact]
    public async Task The_command_takes_back_what_is_stored_for_it_and_says_so_when_it_is_ready()
    {
        using var file = MemoryFile.Create("test", 4096);
        for (int starts = 0; starts < 2; starts++)
        {
            using PageferryProcess hold = StartCommand();
            await hold.WaitUntilAsync(() => (_manager.HasHeard("READY=1") && hold.Output.Length > 0) || hold.HasExited, "the holder is ready");
            Assert.True(hold.Output.Contains("the service manager stores it", StringComparison.Ordinal), hold.Output + hold.Errors);
            using var client = HolderClient.Connect(SocketPath);
            if (starts == 0)
            {
                client.Put("guest", s_secret, HoldStage.LetGo, "blob"u8, file.Descriptor);
                hold.Signal("TERM");
                await hold.WaitForExitAsync();
                Assert.True(_manager.HasHeard("STOPPING=1"));
                _manager.Told.Clear();
            }
            else
            {
                HeldRecord record = client.Take("guest", s_secret);
                Assert.Equal("blob"u8, record.Blob);
                Assert.Equal(Inode(file.Descriptor), Inode(Assert.Single(record.Descriptors)));
                record.Descriptors[0].Dispose();
            }
        }
    }

    [Fact]
    public async Task Without_a_store_the_command_says_that_all_is_gone_with_it()
    {
        using var none = new StoringManager(_directory.Path("none"), most: 0);
        using PageferryProcess hold = PageferryProcess.StartProgram("env", $"NOTIFY_SOCKET={none.Address}", PageferryProcess.Built, "hold", "--socket", SocketPath);
        await hold.WaitUntilAsync(() => (none.HasHeard("READY=1") && hold.Output.Length > 0) || hold.HasExited, "the holder is ready");
        Assert.Contains("until it is ended: then that is gone", hold.Output, StringComparison.Ordinal);
        using var client = HolderClient.Connect(SocketPath);
        client.Put("guest", s_secret, HoldStage.LetGo, []);
    }

    private static HoldAnswer? Refusal(Action ask) => Assert.Throws<HolderException>(ask).Answer;

    private static string Inode(FileDescriptor descriptor) =>
        File.ReadLines(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fdinfo/{descriptor.Number}")).Single(line => line.StartsWith("ino:", StringComparison.Ordinal));

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

    /// <summary>Starts the command as a service manager does: what is stored is open from 3 on, and the environment says so.</summary>
    private PageferryProcess StartCommand()
    {
        List<(string Name, FileDescriptor Descriptor)> stored = _manager.Hand();
        FileDescriptor[] given = [.. stored.Select(one => one.Descriptor.DuplicateForPrograms())];
        string places = string.Concat(given.Select((descriptor, i) => string.Create(CultureInfo.InvariantCulture, $" {3 + i}<&{descriptor.Number}")));
        string names = string.Join(':', stored.Select(one => one.Name));
        try
        {
            // More than one digit is bash's alone.
            return PageferryProcess.StartProgram(
                "bash", "-c", $"NOTIFY_SOCKET={_manager.Address} LISTEN_PID=$$ LISTEN_FDS={given.Length} LISTEN_FDNAMES={names} exec \"$@\"{places}", "bash", PageferryProcess.Built, "hold", "--socket", SocketPath);
        }
        finally
        {
            Array.ForEach(given, descriptor => descriptor.Dispose());
            stored.ForEach(one => one.Descriptor.Dispose());
        }
    }

    private void AwaitStored(params string[] names) => Await(() =>
    {
        Assert.Equal(names, _manager.Names);
        return true;
    });

    private List<string> Start() => Start(_manager.Hand());

    private List<string> Start(IEnumerable<(string Name, FileDescriptor Descriptor)> stored, StoringManager? manager = null)
    {
        var holder = Holder.Listen(SocketPath, manager: new ServiceManager((manager ?? _manager).Address));
        List<string> refused = holder.TakeBack(stored);
        _end = new EventFd();
        EventFd end = _end;
        _thread = new Thread(() =>
        {
            using (holder)
            {
                holder.Run(end.Descriptor);
            }
        });
        _thread.Start();
        return refused;
    }

    private void Stop()
    {
        _end?.Signal();
        _thread?.Join();
        _end?.Dispose();
        (_end, _thread) = (null, null);
    }
}
