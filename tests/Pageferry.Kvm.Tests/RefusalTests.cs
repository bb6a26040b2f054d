using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

/// <summary>Each documented failure, made with the real kernel: the errno, what was tried, and what to do.</summary>
public class RefusalTests
{
    [Fact]
    public void A_missing_device_tells_which_module_to_load()
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => Kvm.Open("/dev/no-such-kvm"));
        Assert.Equal(Errno.ENOENT, failure.Errno);
        Assert.Contains("open /dev/no-such-kvm", failure.Message, StringComparison.Ordinal);
        Assert.Contains("kvm_intel or kvm_amd", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_device_without_permission_tells_which_group_to_join()
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pageferry-kvm-");
        try
        {
            directory.UnixFileMode |= UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
            string device = Path.Combine(directory.FullName, "kvm");
            File.WriteAllBytes(device, []);
            File.SetUnixFileMode(device, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            LinuxException failure = Assert.Throws<LinuxException>(() => AsNobody(() => Kvm.Open(device).Dispose()));
            Assert.Equal(Errno.EACCES, failure.Errno);
            Assert.Contains("usermod -aG kvm", failure.Message, StringComparison.Ordinal);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [Fact]
    public void Another_device_is_told_from_kvm()
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => Kvm.Open("/dev/null"));
        Assert.Equal(Errno.ENOTTY, failure.Errno);
        Assert.Contains("/dev/null", failure.Message, StringComparison.Ordinal);
        Assert.Contains("not KVM's device", failure.Message, StringComparison.Ordinal);
    }

    [NeedsKvm]
    [Fact]
    public void A_vcpu_beyond_the_limit_is_refused_with_the_limit()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        LinuxException failure = Assert.Throws<LinuxException>(() => machine.CreateVcpu(1 << 20));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains($"{kvm.MaxVcpus}", failure.Message, StringComparison.Ordinal);
    }

    [NeedsKvm]
    [Fact]
    public void Slots_that_make_no_sense_are_refused_and_named()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using MappedRegion memory = MappedRegion.MapAnonymous(4 * 4096);
        machine.SetMemoryRegion(0, 0, memory.Length, memory.Address);

        LinuxException failure = Refused(Errno.EINVAL, () => machine.SetMemoryRegion(uint.MaxValue, 1 << 20, 4096, memory.Address));
        Assert.Contains($"slot {uint.MaxValue}", failure.Message, StringComparison.Ordinal);
        Assert.Contains("0x100000", failure.Message, StringComparison.Ordinal);
        _ = Refused(Errno.EINVAL, () => machine.SetMemoryRegion((uint)kvm.CheckExtension(KvmCapability.MemorySlots), 1 << 20, 4096, memory.Address));
        _ = Refused(Errno.EINVAL, () => machine.SetMemoryRegion(1, (1 << 20) + 1, 4096, memory.Address));
        _ = Refused(Errno.EINVAL, () => machine.SetMemoryRegion(1, 1 << 20, 4095, memory.Address));
        _ = Refused(Errno.EINVAL, () => machine.SetMemoryRegion(1, 1 << 20, 4096, memory.Address + 1));
        _ = Refused(Errno.EINVAL, () => machine.SetMemoryRegion(1, 1 << 20, 4096, memory.Address, (MemoryRegionFlags)(1 << 30)));
        _ = Refused(Errno.EINVAL, () => machine.SetMemoryRegion(0, 0, 4096, memory.Address));
        _ = Refused(Errno.EEXIST, () => machine.SetMemoryRegion(1, 4096, 4096, memory.Address));
        _ = Refused(Errno.EINVAL, () => machine.SetMemoryRegion(1, 0, 0, 0));
    }

    [NeedsKvm]
    [Fact]
    public void A_cpuid_that_makes_no_sense_is_refused()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);

        // A count beyond the most entries that the kernel takes: it does not look at them.
        byte[] cpuid = new byte[Interop.CpuidHeaderBytes];
        cpuid.AsSpan(0, 4).Fill(0xFF);
        Assert.Equal(Errno.E2BIG, Assert.Throws<LinuxException>(() => vcpu.SetCpuid(cpuid)).Errno);
    }

    [NeedsKvm]
    [Fact]
    public void A_vector_state_that_the_processor_has_not_is_refused()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        LinuxException failure = Assert.Throws<LinuxException>(() => vcpu.Xcr0 = 4);
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains("XCRs of vCPU 0", failure.Message, StringComparison.Ordinal);
    }

    private static LinuxException Refused(Errno errno, Action act)
    {
        LinuxException failure = Assert.Throws<LinuxException>(act);
        Assert.Equal(errno, failure.Errno);
        return failure;
    }

    /// <summary>Runs an action on a thread whose file accesses are nobody's; the rest of the process keeps its own.</summary>
    private static void AsNobody(Action act)
    {
        const int Nobody = 65534;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            _ = SetFileSystemUser(Nobody);
            try
            {
                act();
            }
            catch (LinuxException refusal)
            {
                failure = refusal;
            }
        });
        thread.Start();
        thread.Join();
        if (failure is not null)
        {
            throw failure;
        }
    }

    [DllImport("libc", EntryPoint = "setfsuid")]
    private static extern int SetFileSystemUser(int user);
}
