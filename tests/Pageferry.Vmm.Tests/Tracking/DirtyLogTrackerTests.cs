using Pageferry.Memory;

namespace Pageferry.Vmm.Tests.Tracking;

public sealed class DirtyLogTrackerTests : DirtyTrackerTests
{
    public DirtyLogTrackerTests(HugePages hugePages)
        : base(hugePages) => Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");

    protected override IMachine Create(MachineConfiguration configuration, string guest)
    {
        KvmDevice.SkipIfMissing();
        return KvmMachine.Create(configuration with { DirtyTracking = DirtyTracking.Log }, GuestImage.Find(guest));
    }

    protected override PageWriter CreateWriter(GuestMemory memory) => PageWriter.UnderKvm(memory, DirtyTracking.Log);

    [Fact]
    public void Rearming_a_stripe_clears_that_stripe_alone()
    {
        using PageWriter guest = CreateWriter(GuestMemory.Create(16 << 20));
        using IDirtyTracker tracker = Track(guest.Machine);
        guest.Write([FirstPage + 63, FirstPage + 64, FirstPage + 127, FirstPage + 128]);
        _ = Fetch(guest.Machine, tracker);
        tracker.Rearm(FirstPage + 64, 64);
        Assert.Equal([FirstPage + 63, FirstPage + 128], Fetch(guest.Machine, tracker));
    }

    /// <summary>KVM clears pieces that are counted from a slot's first page, and trackers those of the whole memory.</summary>
    [Theory]
    [InlineData(DirtyTracking.Log)]
    [InlineData(DirtyTracking.Ring)]
    public void A_region_that_does_not_begin_with_a_piece_is_told_and_rearmed_too(DirtyTracking dirtyTracking)
    {
        DirtyRingTrackerTests.SkipWithoutRing(dirtyTracking);
        const ulong FirstLength = (8 << 20) + (5 * Page.Size);
        GuestRegion[] regions = [new(0, FirstLength), new(16 << 20, (4 << 20) + (3 * Page.Size)), new(32 << 20, 7 * Page.Size)];
        using PageWriter guest = PageWriter.UnderKvm(GuestMemory.Create(regions), dirtyTracking);
        using IDirtyTracker tracker = Track(guest.Machine);
        ulong second = FirstLength / Page.Size;
        ulong all = guest.Machine.Memory.PageCount;
        ulong[] pages = [second - 1, second, second + 1, second + 64, all - 8, all - 7, all - 1];
        for (int round = 0; round < 3; round++)
        {
            guest.Write(pages);
            Assert.Equal(pages, Fetch(guest.Machine, tracker));
            guest.Write([pages[1], pages[^1]]);
            tracker.Rearm(0, all);
            Assert.Subset(new HashSet<ulong>([pages[1], pages[^1]]), Fetch(guest.Machine, tracker).ToHashSet());
            tracker.Rearm(0, all);
            Assert.Empty(Fetch(guest.Machine, tracker));
        }
    }
}
