using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

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
        destination.SetClock(MachineClock.Deserialize(read.Serialize()) with { Flags = ClockFlags.None });
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
    public void A_clocks_binary_form_is_as_documented_and_its_length_is_checked()
    {
        var clock = new MachineClock(0x0102030405060708, (ClockFlags)0x8000_000E, 0x1112131415161718, 0x2122232425262728);
        byte[] bytes = clock.Serialize();
        Assert.Equal("08070605040302010E0000801817161514131211" + "2827262524232221", Convert.ToHexString(bytes));
        Assert.Equal(clock, MachineClock.Deserialize(bytes));
        _ = Assert.Throws<InvalidDataException>(() => MachineClock.Deserialize(bytes.AsSpan(1)));
        _ = Assert.Throws<InvalidDataException>(() => MachineClock.Deserialize([.. bytes, 0]));
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
}
