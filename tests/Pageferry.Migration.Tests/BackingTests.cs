using System.Net;
using Pageferry.Memory;
using Pageferry.Testing;

namespace Pageferry.Migration.Tests;

/// <summary>A guest moves from any kind of memory to any other: pages of 4 KiB go, whatever size they have on either side.</summary>
public class BackingTests(HugePages hugePages)
{
    private const ulong Size = 32 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private static readonly GuestBacking[] s_backings = [GuestBacking.Memfd, GuestBacking.Anonymous, GuestBacking.Memfd2M];

    public static TheoryData<MigrationMode, FaultDelivery, GuestBacking, GuestBacking> Combinations =>
        new MatrixTheoryData<MigrationMode, FaultDelivery, GuestBacking, GuestBacking>(Enum.GetValues<MigrationMode>(), Enum.GetValues<FaultDelivery>(), s_backings, s_backings);

    [Theory]
    [MemberData(nameof(Combinations))]
    public async Task A_guest_finds_every_page_as_it_left_it(MigrationMode mode, FaultDelivery delivery, GuestBacking from, GuestBacking to)
    {
        _ = hugePages;
        using var leaving = new TestGuest(GuestMemory.Create(Size, from));
        leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => leaving.Round > 2, s_patience));
        TestGuest? arrived = null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions, to), layout.GuestId) { Delivery = delivery });
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (TestGuest)guest), TestContext.Current.CancellationToken);

        // In auto some pages go before the guest, and some after it.
        var source = new MigrationSource(leaving, new MigrationOptions
        {
            Mode = mode,
            DowntimeLimit = mode == MigrationMode.Precopy ? s_patience : TimeSpan.FromTicks(1),
            Validate = true,
        });
        source.Run(destination.EndPoint);
        await receiving.WaitAsync(s_patience, TestContext.Current.CancellationToken);
        using TestGuest guest = arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 2, s_patience));
        Assert.Equal(0, leaving.Wrong + guest.Wrong);
        HugePageCollapse? collapse = guest.Memory.Collapse;
        Assert.Equal(from == GuestBacking.Memfd2M && to != GuestBacking.Memfd2M, collapse is not null);
        if (collapse is not null)
        {
            // A range that the guest is just using may be left.
            Assert.True(collapse.Completed.Wait(s_patience));
            Assert.Equal((long)(Size / HugePageCollapse.HugePageSize), collapse.Collapsed + collapse.Left);
            Assert.True(collapse.Collapsed > collapse.Left, $"{collapse.Collapsed} collapsed, {collapse.Left} left");
            round = guest.Round;
            Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 2, s_patience));
            Assert.Equal(0, guest.Wrong);
        }

        MigrationProgress progress = source.Progress;
        TestContext.Current.TestOutputHelper?.WriteLine($"{progress}");
        Assert.Equal(mode != MigrationMode.Postcopy, progress.PagesPrecopy > 0);
        Assert.Equal(mode != MigrationMode.Precopy, progress.PagesDemand + progress.PagesBackground > 0);
    }
}
