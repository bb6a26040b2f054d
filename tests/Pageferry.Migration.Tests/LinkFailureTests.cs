using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>The link is cut, and peers break the rules: the guest goes on at one side or stalls at one side, and reads nothing wrong.</summary>
public sealed class LinkFailureTests : IDisposable
{
    private const ulong Size = 4 << 20;

    /// <summary>What a destination sends before switchover: three welcomes of 40 bytes, Armed, StateLoaded.</summary>
    private const int AnswerBytes = (3 * 40) + 8 + 8;

    /// <summary>What a source sends before switchover: three hellos of 40 bytes, the layout of 52 bytes with machine kind "test", 16 bytes and as many of state; 8 more for each header, 4 for each check.</summary>
    private const int RequestBytes = (3 * 40) + (8 + 52 + 4) + (8 + 32 + 4);

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TestGuest _leaving = new(GuestMemory.Create(Size));
    private readonly MigrationDestination _destination;
    private readonly Task _receiving;
    private volatile TestGuest? _arrived;

    public LinkFailureTests()
    {
        _destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId));
        _receiving = Task.Run(() => _destination.Receive(guest => _arrived = (TestGuest)guest));
        _leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > 1, s_patience));
    }

    public void Dispose()
    {
        _destination.Dispose();
        _leaving.Dispose();
    }

    [Fact]
    public void A_cut_at_any_byte_of_the_answers_leaves_the_guest_running_here()
    {
        for (int bytes = 0; bytes < AnswerBytes; bytes++)
        {
            using var proxy = new Relay(_destination.EndPoint);
            proxy.CutAfter(toSource: bytes);
            MigrationException failure = Assert.Throws<MigrationException>(() => Source().Run(proxy.EndPoint));
            Assert.False(failure.SwitchedOver, $"Cut after {bytes} bytes of answers.");
            AssertRunsHere();
        }

        AssertMoves();
    }

    [Fact]
    public void A_cut_at_any_byte_of_the_requests_leaves_the_guest_running_here()
    {
        for (int bytes = 0; bytes < RequestBytes; bytes++)
        {
            using var proxy = new Relay(_destination.EndPoint);
            proxy.CutAfter(toDestination: bytes);
            MigrationException failure = Assert.Throws<MigrationException>(() => Source().Run(proxy.EndPoint));
            Assert.False(failure.SwitchedOver, $"Cut after {bytes} bytes of requests.");
            AssertRunsHere();
        }

        AssertMoves();
    }

    [Fact]
    public void A_cut_within_the_switchover_itself_leaves_the_guest_stopped_here_and_not_running_there()
    {
        // The last message before pages: 8 bytes, of which some arrive.
        using var proxy = new Relay(_destination.EndPoint);
        proxy.CutAfter(toDestination: RequestBytes + 4);
        MigrationException failure = Assert.Throws<MigrationException>(() => Source().Run(proxy.EndPoint));
        Assert.True(failure.SwitchedOver);
        Assert.Contains("is kept here", failure.Message, StringComparison.Ordinal);
        Assert.False(_leaving.IsRunning);
        Assert.Null(_arrived);
        MigrationException there = GiveUp();
        Assert.False(there.SwitchedOver);
        Assert.Contains("may be the source's", there.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(23)]
    [InlineData(4_000)]
    [InlineData(4_096 + 24)]
    [InlineData(70_001)]
    [InlineData(1_000_000)]
    [InlineData(2_000_000)]
    public void A_cut_among_the_pages_stalls_the_guest_there_and_it_reads_nothing_wrong(int bytes)
    {
        using var proxy = new Relay(_destination.EndPoint);
        proxy.CutAfter(toDestination: RequestBytes + 8 + bytes);
        MigrationException failure = Assert.Throws<MigrationException>(() => Source().Run(proxy.EndPoint));
        Assert.True(failure.SwitchedOver);
        Assert.Contains("'pageferry vm migrate --resume --to HOST:PORT'", failure.Message, StringComparison.Ordinal);
        Assert.Contains("'pageferry recover rollback'", failure.Message, StringComparison.Ordinal);
        Assert.False(_leaving.IsRunning);
        MigrationException there = GiveUp();
        Assert.True(there.SwitchedOver);
        Assert.Contains("stalls on the", there.Message, StringComparison.Ordinal);
        TestGuest stalled = _arrived!;

        // It goes on as far as it has pages, then waits: it never reads a page that did not arrive.
        Assert.True(SpinWait.SpinUntil(() => _destination.Engine!.PendingFaults == 1, s_patience));
        Assert.Equal(0, stalled.Wrong);
        Assert.True(stalled.IsRunning);
        Assert.True(_destination.Engine!.UnknownPages > 0);
        Assert.Equal(MigrationPhase.Stalled, _destination.Progress.Phase);
    }

    [Fact]
    public void Versions_without_a_common_one_part_with_both_named()
    {
        using var newer = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)), versions: new VersionRange(7, 9));
        Task receiving = Task.Run(() => newer.Receive(_ => { }));
        MigrationException failure = Assert.Throws<MigrationException>(() => Source().Run(newer.EndPoint));
        Assert.Contains("7 to 9", failure.Message, StringComparison.Ordinal);
        Assert.Contains($"{VersionRange.Current}", failure.Message, StringComparison.Ordinal);
        AssertRunsHere();
    }

    [Fact]
    public void Versions_agree_on_the_newest_that_both_speak()
    {
        Assert.Equal((ushort)3, new VersionRange(1, 3).Agree(new VersionRange(2, 5)));
        Assert.Equal((ushort)2, new VersionRange(2, 2).Agree(new VersionRange(1, 9)));
        Assert.Null(new VersionRange(1, 2).Agree(new VersionRange(3, 4)));
        using var newer = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)), versions: new VersionRange(1, 9));
        TestGuest? arrived = null;
        Task receiving = Task.Run(() => newer.Receive(guest => arrived = (TestGuest)guest));
        Source().Run(newer.EndPoint);
        receiving.Wait(s_patience);
        arrived!.Dispose();
    }

    [Fact]
    public void A_destination_that_can_not_make_room_says_why_and_waits_on()
    {
        int attempts = 0;
        using var full = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0),
            layout => attempts++ == 0 ? throw new InvalidOperationException("There is no room for 4 MiB.") : new TestGuest(GuestMemory.Create(layout.Regions)));
        TestGuest? arrived = null;
        Task receiving = Task.Run(() => full.Receive(guest => arrived = (TestGuest)guest));
        MigrationException failure = Assert.Throws<MigrationException>(() => Source().Run(full.EndPoint));
        Assert.Contains("There is no room for 4 MiB.", failure.Message, StringComparison.Ordinal);
        AssertRunsHere();
        Source().Run(full.EndPoint);
        receiving.Wait(s_patience);
        arrived!.Dispose();
    }

    [Fact]
    public void Strangers_are_turned_away_and_the_guest_can_come()
    {
        foreach (byte[] words in (byte[][])["GET / HTTP/1.1\r\n\r\n"u8.ToArray(), new byte[100], [.. Enumerable.Repeat((byte)0xff, 100)], []])
        {
            using var stranger = new TcpClient();
            stranger.Connect(_destination.EndPoint);
            stranger.GetStream().Write(words);
        }

        AssertMoves();
    }

    [Fact]
    public void Listening_beyond_loopback_is_refused() =>
        Assert.Contains(
            "loopback",
            Assert.Throws<ArgumentException>(() => new MigrationDestination(new IPEndPoint(IPAddress.Any, 0), _ => throw new InvalidOperationException())).Message,
            StringComparison.Ordinal);

    private MigrationSource Source() => new(_leaving, new MigrationOptions { Mode = MigrationMode.Postcopy, Connections = 1, ReconnectFor = TimeSpan.Zero });

    /// <summary>Has the destination wait for its source no more.</summary>
    private MigrationException GiveUp()
    {
        Assert.True(SpinWait.SpinUntil(() => _destination.Progress.Phase == MigrationPhase.Paused, s_patience), $"{_destination.Progress.Phase}");
        _destination.Dispose();
        return Assert.Throws<MigrationException>(() => _receiving.WaitAsync(s_patience).GetAwaiter().GetResult());
    }

    private void AssertRunsHere()
    {
        ulong round = _leaving.Round;
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > round, s_patience), "The guest does not run any more.");
        Assert.Equal(0, _leaving.Wrong);
        Assert.Null(_arrived);
    }

    private void AssertMoves()
    {
        Source().Run(_destination.EndPoint);
        Assert.True(_receiving.Wait(s_patience));
        using TestGuest guest = _arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 1, s_patience));
        Assert.Equal(0, guest.Wrong);
    }
}
