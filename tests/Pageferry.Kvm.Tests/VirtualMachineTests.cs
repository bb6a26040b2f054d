using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

[NeedsKvm]
public class VirtualMachineTests
{
    [Fact]
    public void A_clock_goes_on_from_where_it_was_read()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine source = kvm.CreateVirtualMachine();
        source.SetClock(new MachineClock(3_600_000_000_000, ClockFlags.None, 0, 0));
        MachineClock read = source.GetClock();
        Assert.InRange(read.Nanoseconds, 3_600_000_000_000UL, 3_660_000_000_000UL);

        using VirtualMachine destination = kvm.CreateVirtualMachine();
        destination.SetClock(read with { Flags = ClockFlags.None });
        Assert.InRange(destination.GetClock().Nanoseconds, read.Nanoseconds, read.Nanoseconds + 60_000_000_000);
    }

    [Fact]
    public void A_clock_with_its_realtime_gains_the_time_that_has_passed()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        Assert.SkipUnless(((ClockFlags)machine.CheckExtension(KvmCapability.AdjustClock)).HasFlag(ClockFlags.Realtime), "KVM_CLOCK_REALTIME, of Linux 5.16");
        const ulong Hour = 3_600_000_000_000;
        ulong now = (ulong)(DateTime.UtcNow - DateTime.UnixEpoch).Ticks * 100;
        machine.SetClock(new MachineClock(Hour, ClockFlags.Realtime | ClockFlags.TscStable, now - Hour, 0));
        Assert.InRange(machine.GetClock().Nanoseconds, 2 * Hour, (2 * Hour) + 60_000_000_000);
    }

    [Fact]
    public void Interrupt_controllers_are_created_once_and_before_the_first_vcpu()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        Assert.False(machine.HasIrqchip);
        machine.CreateIrqchip();
        Assert.True(machine.HasIrqchip);
        Assert.Equal(Errno.EEXIST, Assert.Throws<LinuxException>(machine.CreateIrqchip).Errno);

        using VirtualMachine late = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = late.CreateVcpu(0);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(late.CreateIrqchip).Errno);
        Assert.False(late.HasIrqchip);
    }

    [Fact]
    public void Memory_that_overlaps_or_is_not_of_pages_is_refused_by_address_and_slot()
    {
        using Kvm kvm = Kvm.Open();
        using MappedRegion memory = MappedRegion.MapAnonymous(4 * 4096);
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        machine.SetMemoryRegion(0, 0, 8192, memory.Address);
        LinuxException overlap = Assert.Throws<LinuxException>(() => machine.SetMemoryRegion(1, 4096, 8192, memory.Address));
        Assert.Equal(Errno.EEXIST, overlap.Errno);
        Assert.Contains("0x1000 in slot 1", overlap.Message, StringComparison.Ordinal);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => machine.SetMemoryRegion(1, 8192, 100, memory.Address)).Errno);

        // A slot of no bytes is deleted, and its place is free.
        machine.SetMemoryRegion(0, 0, 0, memory.Address);
        machine.SetMemoryRegion(1, 4096, 8192, memory.Address);
    }

    [Fact]
    public void A_vcpu_is_made_once()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        Assert.Equal(Errno.EEXIST, Assert.Throws<LinuxException>(() => machine.CreateVcpu(0)).Errno);
    }

    [Fact]
    public void Capabilities_are_asked_of_the_kernel()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        Assert.NotEqual(0, kvm.CheckExtension(KvmCapability.ImmediateExit));
        Assert.NotEqual(0, machine.CheckExtension(KvmCapability.SyncMmu));
        Assert.Equal(0, machine.CheckExtension((KvmCapability)60_000));
        Assert.True(kvm.MaxVcpus >= 1);
        Assert.NotEmpty(kvm.GetMsrIndexList());
    }
}
