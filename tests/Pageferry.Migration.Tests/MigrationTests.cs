using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

public class MigrationTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public static TheoryData<GuestBacking, GuestBacking> Backings => new MatrixTheoryData<GuestBacking, GuestBacking>(
        [GuestBacking.Memfd, GuestBacking.Anonymous], [GuestBacking.Memfd, GuestBacking.Anonymous]);

    public static TheoryData<MigrationMode, GuestBacking, GuestBacking, MigrationCompression> Combinations => new MatrixTheoryData<MigrationMode, GuestBacking, GuestBacking, MigrationCompression>(
        [MigrationMode.Auto, MigrationMode.Precopy],
        [GuestBacking.Memfd, GuestBacking.Anonymous],
        [GuestBacking.Memfd, GuestBacking.Anonymous],
        [MigrationCompression.None, MigrationCompression.Lz4, MigrationCompression.Zstd, MigrationCompression.Auto]);

    [Theory]
    [MemberData(nameof(Combinations))]
    public async Task Its_memory_goes_before_it(MigrationMode mode, GuestBacking from, GuestBacking to, MigrationCompression compression)
    {
        const ulong Size = 64 << 20;
        using var leaving = new TestGuest(GuestMemory.Create(Size, from));
        leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => leaving.Round > 2, s_patience));

        TestGuest? arrived = null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions, to), layout.GuestId));
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (TestGuest)guest), TestContext.Current.CancellationToken);
        var source = new MigrationSource(leaving, new MigrationOptions { Mode = mode, Compression = compression, Validate = true, DowntimeLimit = TimeSpan.FromSeconds(2) });
        source.Run(destination.EndPoint);
        await receiving.WaitAsync(s_patience, TestContext.Current.CancellationToken);
        foreach (string decision in source.Decisions)
        {
            TestContext.Current.TestOutputHelper?.WriteLine(decision);
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{source.Progress}");
        using TestGuest guest = arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 3, s_patience));
        Assert.Equal(0, leaving.Wrong);
        Assert.Equal(0, guest.Wrong);
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public async Task A_running_guest_moves_and_finds_every_page_as_it_left_it(GuestBacking from, GuestBacking to)
    {
        const ulong Size = 64 << 20;
        using var leaving = new TestGuest(GuestMemory.Create(Size, from));
        leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => leaving.Round > 2, s_patience));

        TestGuest? arrived = null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions, to), layout.GuestId));
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (TestGuest)guest), TestContext.Current.CancellationToken);
        var source = new MigrationSource(leaving, new MigrationOptions { Mode = MigrationMode.Postcopy });
        source.Run(destination.EndPoint);
        await receiving.WaitAsync(s_patience, TestContext.Current.CancellationToken);

        using TestGuest guest = arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 3, s_patience));
        Assert.Equal(0, leaving.Wrong);
        Assert.Equal(0, guest.Wrong);
        Assert.False(leaving.IsRunning);

        MigrationProgress sent = source.Progress;
        MigrationProgress received = destination.Progress;
        Assert.Equal(MigrationPhase.Completed, sent.Phase);
        Assert.Equal(MigrationPhase.Completed, received.Phase);
        Assert.Equal((long)leaving.Memory.PageCount, sent.PagesDemand + sent.PagesBackground + sent.PagesZero);
        Assert.Equal(sent.PagesDemand, received.PagesDemand);
        Assert.Equal(sent.PagesZero, received.PagesZero);
        Assert.True(sent.PagesZero > (long)leaving.Memory.PageCount / 4);
        Assert.InRange(sent.Downtime, TimeSpan.FromTicks(1), TimeSpan.FromSeconds(5));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_page_that_is_another_here_than_it_arrived_is_named_by_validation(bool goesBack)
    {
        using var leaving = new TestGuest(GuestMemory.Create(64 << 20));
        leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => leaving.Round > 2, s_patience));
        TestGuest? arrived = null;
        ulong changed = 0;
        var log = new LogLines();
        using var fenced = new ManualResetEventSlim();
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId), log) { Fenced = fenced.Set };
        void Change(IArrivingGuest guest)
        {
            // The first that is there. Until this returns, the destination does not say that it has all.
            arrived = (TestGuest)guest;
            Assert.True(SpinWait.SpinUntil(() => TryFindPresent(arrived, out changed), s_patience));
            leaving.Memory.WriteAsGuest((changed * Page.Size) + (Page.Size / 2), [1, 2, 3, 4, 5, 6, 7, 8]);
        }

        var receiving = Task.Run(() => destination.Receive(Change), TestContext.Current.CancellationToken);
        var source = new MigrationSource(leaving, new MigrationOptions { Mode = MigrationMode.Postcopy, Validate = true });
        MigrationException failure = Assert.Throws<MigrationException>(() => source.Run(destination.EndPoint));
        Assert.Contains($"1 of {leaving.Memory.PageCount} pages that did not arrive as they are at the source: {changed}.", failure.Message, StringComparison.Ordinal);
        Assert.False(leaving.IsRunning);

        // The destination was not lost: it has all, and hears why its source does not forget the guest.
        Assert.True(failure.SwitchedOver);
        Assert.Contains("did not pass validation", failure.Message, StringComparison.Ordinal);
        Assert.Contains("has all of its memory", failure.Message, StringComparison.Ordinal);
        Assert.Equal(MigrationPhase.Mismatched, source.Progress.Phase);
        Assert.Throws<InvalidOperationException>(() => source.Resume(destination.EndPoint));
        Assert.True(SpinWait.SpinUntil(() => log.Lines.Count > 0, s_patience));
        Assert.Contains("The peer parted: Validation found 1 of", Assert.Single(log.Lines), StringComparison.Ordinal);
        if (goesBack)
        {
            source.RollBack(destinationIsFenced: false);
            Assert.Equal(MigrationPhase.RolledBack, source.Progress.Phase);
            Assert.True(fenced.Wait(s_patience));
            Assert.False(arrived!.IsRunning);
            ulong before = leaving.Round;
            Assert.True(SpinWait.SpinUntil(() => leaving.Round > before + 2, s_patience));
            Assert.Equal(0, leaving.Wrong);
            arrived.Dispose();
            return;
        }

        // Nobody comes back. It has all that was sent, and runs on.
        destination.Dispose();
        Assert.True(SpinWait.SpinUntil(() => receiving.IsCompleted, s_patience));
        using TestGuest guest = arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 2, s_patience));
        Assert.Equal(0, guest.Wrong);
    }

    private static bool TryFindPresent(TestGuest guest, out ulong page)
    {
        page = 0;
        while (page < guest.Memory.PageCount && guest.Engine.States[page] != PageState.Present)
        {
            page++;
        }

        return page < guest.Memory.PageCount;
    }
}
