using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests.Tracking;

public sealed class DirtyRingTrackerTests : DirtyTrackerTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public DirtyRingTrackerTests(HugePages hugePages)
        : base(hugePages) => SkipWithoutRing(DirtyTracking.Ring);

    internal static void SkipWithoutRing(DirtyTracking dirtyTracking)
    {
        if (dirtyTracking == DirtyTracking.Ring)
        {
            KvmDevice.SkipIfMissing();
            using Kvm.Kvm kvm = Kvm.Kvm.Open();
            Assert.SkipUnless(kvm.CheckExtension(KvmCapability.DirtyLogRing) > 0, "KVM has no dirty rings (KVM_CAP_DIRTY_LOG_RING).");
        }
    }

    protected override IMachine Create(MachineConfiguration configuration, string guest) =>
        KvmMachine.Create(configuration with { DirtyTracking = DirtyTracking.Ring }, GuestImage.Find(guest));

    protected override PageWriter CreateWriter(GuestMemory memory) => PageWriter.UnderKvm(memory, DirtyTracking.Ring);

    [Fact]
    public void A_guest_that_writes_more_than_its_ring_holds_goes_on_and_all_of_it_is_told()
    {
        const ulong Pages = DirtyRings.Entries * 2;
        using IMachine machine = Create(new MachineConfiguration(Pages * Page.Size), "stamp");
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes > 0, s_patience));
        using IDirtyTracker tracker = machine.TrackDirtyPages();
        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 3 || machine.Progress.Ended, s_patience), machine.Progress.ToString());
        machine.Pause();
        Assert.Null(machine.Progress.Failure);
        var dirty = new PageBitmap(Pages);
        tracker.Fetch(dirty);
        ulong first = (BootLayout.GuestBase / Page.Size) + 1;
        Assert.Equal(Pages - first, (ulong)Enumerable.Range((int)first, (int)(Pages - first)).Count(page => dirty[(ulong)page]));
    }
}
