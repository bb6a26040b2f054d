using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

/// <summary>What the kernel answers to what not every kernel has: slots with userfaults, and guest_memfd.</summary>
[NeedsKvm]
public class UserfaultRegionTests
{
    private const ulong PageSize = 4096;

    [Fact]
    public void The_probe_says_what_the_kernel_says_to_a_slot_with_a_bitmap()
    {
        using Kvm kvm = Kvm.Open();
        LinuxException? probed = kvm.ProbeUserfault();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using var memory = MappedRegion.MapAnonymous(PageSize);
        using var bitmap = MappedRegion.MapAnonymous(PageSize);
        var refused = Record.Exception(() => machine.SetUserfaultRegion(0, 0, PageSize, memory.Address, bitmap.Address)) as LinuxException;
        Assert.Equal(probed?.Errno, refused?.Errno);
        if (refused is not null)
        {
            // ENOTTY before Linux 6.8.
            Assert.Contains(refused.Errno, (Errno[])[Errno.EINVAL, Errno.ENOTTY]);
            Assert.Contains("KVM_MEM_USERFAULT", refused.Message, StringComparison.Ordinal);
            Assert.Contains("no release of Linux has", refused.Message, StringComparison.Ordinal);
            _ = Assert.Throws<ArgumentException>(() => machine.CreateDirtyLog(0));
        }

        // Refused, a slot is as it was: it can still be changed into one that logs.
        machine.SetMemoryRegion(0, 0, PageSize, memory.Address);
        _ = Record.Exception(() => machine.SetUserfaultRegion(0, 0, PageSize, memory.Address, bitmap.Address));
        machine.SetMemoryRegion(0, 0, PageSize, memory.Address, MemoryRegionFlags.LogDirtyPages);
    }

    [Fact]
    public void A_guest_memfd_outlives_its_virtual_machine_and_is_memory_of_another()
    {
        using Kvm kvm = Kvm.Open();
        Assert.SkipUnless(
            ((GuestMemfdFlags)kvm.CheckExtension(KvmCapability.GuestMemfdFlags)).HasFlag(GuestMemfdFlags.Mmap | GuestMemfdFlags.InitShared), "no guest_memfd can be mapped here");
        FileDescriptor file;
        using (VirtualMachine maker = kvm.CreateVirtualMachine())
        {
            file = maker.CreateGuestMemfd(4 * PageSize, GuestMemfdFlags.Mmap | GuestMemfdFlags.InitShared);
        }

        using (file)
        using (var one = MappedRegion.MapShared(file, 0, 4 * PageSize))
        using (var other = MappedRegion.MapShared(file, 0, 4 * PageSize))
        using (VirtualMachine machine = kvm.CreateVirtualMachine())
        {
            one.Span(PageSize, 1)[0] = 5;
            Assert.Equal(5, other.Span(PageSize, 1)[0]);
            machine.SetMemoryRegion(0, 0, 4 * PageSize, one.Address);
        }
    }

    [Fact]
    public void A_guest_memfd_with_an_unknown_flag_is_refused_and_names_what_it_takes()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        LinuxException refusal = Assert.Throws<LinuxException>(() => machine.CreateGuestMemfd(PageSize, (GuestMemfdFlags)(1UL << 40)));
        Assert.Contains(refusal.Errno, (Errno[])[Errno.EINVAL, Errno.ENOTTY]);
        Assert.Contains("GUEST_MEMFD_FLAG_MMAP", refusal.Message, StringComparison.Ordinal);
        Assert.Contains("Linux 6.18", refusal.Message, StringComparison.Ordinal);
    }
}
