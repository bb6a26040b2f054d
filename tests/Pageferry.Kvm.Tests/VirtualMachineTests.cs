using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

public class VirtualMachineTests
{
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
