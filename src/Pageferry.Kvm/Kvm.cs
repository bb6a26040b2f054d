using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>The KVM subsystem: <c>/dev/kvm</c>.</summary>
public sealed class Kvm : IDisposable
{
    private const string Device = "/dev/kvm";
    private const int MostCpuidEntries = 512;
    private const int MostMsrs = 4096;

    private Kvm(FileDescriptor descriptor) => Descriptor = descriptor;

    /// <summary>The system file descriptor.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Opens KVM.</summary>
    /// <returns>The subsystem, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ENOENT: no KVM here. EACCES: no permission. ENODEV: no virtualization. ENOTTY: it is another device.</exception>
    /// <exception cref="NotSupportedException">Its API is not the one that every kernel since 2.6.22 has (<c>KVM_GET_API_VERSION</c>).</exception>
    public static Kvm Open() => Open(Device);

    /// <summary>Opens KVM by another name, for tests.</summary>
    internal static Kvm Open(string device)
    {
        int fd = Pageferry.Linux.Interop.Open(device, Pageferry.Linux.Interop.O_RDWR | Pageferry.Linux.Interop.O_CLOEXEC);
        if (fd < 0)
        {
            string advice = (Errno)Marshal.GetLastPInvokeError() == Errno.EACCES
                ? "Run as root or join the group that owns it: usermod -aG kvm USER."
                : "Load the module kvm_intel or kvm_amd on a machine with virtualization enabled.";
            throw LinuxException.FromLastError($"open {device}", advice);
        }

        var kvm = new Kvm(new FileDescriptor(fd));
        int version = Interop.Ioctl(fd, Interop.KVM_GET_API_VERSION, 0);
        if (version < 0)
        {
            LinuxException failure = LinuxException.FromLastError($"ask {device} for its KVM API version", "It is not KVM's device: see 'ls -l' and 'modprobe kvm'.");
            kvm.Dispose();
            throw failure;
        }

        if (version != Interop.KVM_API_VERSION)
        {
            kvm.Dispose();
            throw new NotSupportedException($"{device} speaks KVM API version {version}; version {Interop.KVM_API_VERSION} is needed.");
        }

        return kvm;
    }

    /// <summary><c>KVM_CHECK_EXTENSION</c>: what a capability is worth on this system.</summary>
    /// <param name="capability">The capability.</param>
    /// <returns>0 when it is not there; else 1 or a number that belongs to it.</returns>
    public int CheckExtension(KvmCapability capability) => Math.Max(0, Interop.Ioctl(Descriptor.Number, Interop.KVM_CHECK_EXTENSION, (nint)capability));

    /// <summary>
    /// Whether KVM walks the guests' page tables itself (shadow paging), for want of EPT or NPT or because it is a software KVM: then a page table that it can't
    /// read is a page fault to the guest.
    /// </summary>
    public static bool WalksGuestTables => !IsOn("/sys/module/kvm_intel/parameters/ept") && !IsOn("/sys/module/kvm_amd/parameters/npt");

    /// <summary>
    /// Asks whether KVM makes userfault exits itself (<see cref="VirtualMachine.SetUserfaultRegion"/>), on a virtual machine of its own. No capability number
    /// tells: the series' was another in each version, and mainline has given them to other things.
    /// </summary>
    /// <returns>Why it doesn't; null when it does.</returns>
    /// <exception cref="LinuxException">No virtual machine can be made.</exception>
    public LinuxException? ProbeUserfault()
    {
        const ulong NobodysAddress = ulong.MaxValue - 4095;
        using VirtualMachine machine = CreateVirtualMachine();
        using var memory = MappedRegion.MapAnonymous(MemorySlot.PageSize);
        using var bitmap = MappedRegion.MapAnonymous(MemorySlot.PageSize);
        try
        {
            machine.SetUserfaultRegion(0, 0, memory.Length, memory.Address, bitmap.Address);
        }
        catch (LinuxException refusal)
        {
            return refusal;
        }

        try
        {
            machine.SetUserfaultRegion(1, memory.Length, memory.Length, memory.Address, NobodysAddress);
        }
        catch (LinuxException)
        {
            return null;
        }

        return new LinuxException("find KVM_MEM_USERFAULT behind the flag 1 << 3 of a memory slot", Errno.EINVAL, "This kernel takes any address for the bitmap, and so means something else by it.");
    }

    /// <summary>The most vCPUs a virtual machine can have (<c>KVM_CAP_MAX_VCPUS</c>, or what is recommended where that is unknown).</summary>
    public int MaxVcpus => Math.Max(1, CheckExtension(KvmCapability.MaxVcpus) is > 0 and int most ? most : CheckExtension(KvmCapability.RecommendedVcpus));

    /// <summary>The size of a vCPU's shared memory in bytes (<c>KVM_GET_VCPU_MMAP_SIZE</c>).</summary>
    internal int VcpuMapBytes
    {
        get
        {
            int bytes = Interop.Ioctl(Descriptor.Number, Interop.KVM_GET_VCPU_MMAP_SIZE, 0);
            return bytes > 0 ? bytes : throw LinuxException.FromLastError("ask for the size of a vCPU's shared memory");
        }
    }

    /// <summary>Makes a virtual machine without memory and vCPUs (<c>KVM_CREATE_VM</c>).</summary>
    /// <returns>The virtual machine, which the caller disposes before this.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public VirtualMachine CreateVirtualMachine()
    {
        int fd = Interop.Ioctl(Descriptor.Number, Interop.KVM_CREATE_VM, 0);
        return fd >= 0 ? new VirtualMachine(this, new FileDescriptor(fd)) : throw LinuxException.FromLastError("create a virtual machine");
    }

    /// <summary>The MSRs that make up a vCPU's state here (<c>KVM_GET_MSR_INDEX_LIST</c>).</summary>
    /// <returns>Their indices, in the kernel's order.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public uint[] GetMsrIndexList()
    {
        Span<byte> list = new byte[Interop.MsrListHeaderBytes + (sizeof(uint) * MostMsrs)];
        BinaryPrimitives.WriteUInt32LittleEndian(list, MostMsrs);
        if (Interop.Ioctl(Descriptor, Interop.KVM_GET_MSR_INDEX_LIST, list) < 0)
        {
            throw LinuxException.FromLastError("list the MSRs of a vCPU's state");
        }

        int count = BinaryPrimitives.ReadInt32LittleEndian(list);
        return MemoryMarshal.Cast<byte, uint>(list.Slice(Interop.MsrListHeaderBytes, count * sizeof(uint))).ToArray();
    }

    /// <summary>The CPUID leaves that KVM can show a guest (<c>KVM_GET_SUPPORTED_CPUID</c>).</summary>
    /// <returns>A <c>struct kvm_cpuid2</c> with its entries, as <see cref="VirtualCpu.SetCpuid"/> takes it.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public byte[] GetSupportedCpuid()
    {
        var cpuid = new byte[Interop.CpuidHeaderBytes + (MostCpuidEntries * Interop.CpuidEntryBytes)];
        BinaryPrimitives.WriteUInt32LittleEndian(cpuid, MostCpuidEntries);
        if (Interop.Ioctl(Descriptor, Interop.KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        {
            throw LinuxException.FromLastError("list the CPUID leaves that KVM supports");
        }

        return cpuid[..(Interop.CpuidHeaderBytes + (BinaryPrimitives.ReadInt32LittleEndian(cpuid) * Interop.CpuidEntryBytes))];
    }

    /// <summary>Closes <c>/dev/kvm</c>.</summary>
    public void Dispose() => Descriptor.Dispose();

    private static bool IsOn(string parameter)
    {
        try
        {
            return File.ReadAllText(parameter).Trim() is "Y" or "1";
        }
        catch (Exception absent) when (absent is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
