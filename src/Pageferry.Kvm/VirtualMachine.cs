using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>A virtual machine: memory slots and vCPUs.</summary>
public sealed class VirtualMachine : IDisposable
{
    internal VirtualMachine(Kvm kvm, FileDescriptor descriptor)
    {
        Kvm = kvm;
        Descriptor = descriptor;
    }

    /// <summary>The subsystem it was made by.</summary>
    public Kvm Kvm { get; }

    /// <summary>The virtual machine's file descriptor.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary><c>KVM_CHECK_EXTENSION</c> on the virtual machine.</summary>
    /// <param name="capability">The capability.</param>
    /// <returns>0 when it is not there; else 1 or a number that belongs to it.</returns>
    public int CheckExtension(KvmCapability capability) => Math.Max(0, Interop.Ioctl(Descriptor.Number, Interop.KVM_CHECK_EXTENSION, (nint)capability));

    /// <summary>Puts memory of this process into the guest's physical address space (<c>KVM_SET_USER_MEMORY_REGION</c>).</summary>
    /// <param name="slot">The slot's number; an existing slot is changed, or deleted by a length of 0.</param>
    /// <param name="gpa">The first guest physical address; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="address">The first address in this process; a page multiple. It must stay mapped as long as the slot is there.</param>
    /// <param name="flags">What the slot can do.</param>
    /// <exception cref="LinuxException">EINVAL: the range makes no sense. EEXIST: it overlaps another slot.</exception>
    public void SetMemoryRegion(uint slot, ulong gpa, ulong length, ulong address, MemoryRegionFlags flags = MemoryRegionFlags.None)
    {
        var region = new Interop.kvm_userspace_memory_region
        {
            slot = slot,
            flags = (uint)flags,
            guest_phys_addr = gpa,
            memory_size = length,
            userspace_addr = address,
        };
        int result;

        // SAFETY: the kernel reads a structure of the size that the request's number states.
        unsafe
        {
            result = Interop.Ioctl(Descriptor.Number, Interop.KVM_SET_USER_MEMORY_REGION, &region);
        }

        if (result != 0)
        {
            throw LinuxException.FromLastError($"give the guest {length} bytes of memory at guest physical address 0x{gpa:x} in slot {slot}");
        }
    }

    /// <summary>Makes a vCPU (<c>KVM_CREATE_VCPU</c>).</summary>
    /// <param name="id">Its number, which is its APIC id.</param>
    /// <returns>The vCPU, which the caller disposes before the virtual machine.</returns>
    /// <exception cref="LinuxException">EINVAL: beyond the limit. EEXIST: there is one of that number.</exception>
    public VirtualCpu CreateVcpu(int id)
    {
        int fd = Interop.Ioctl(Descriptor.Number, Interop.KVM_CREATE_VCPU, id);
        return fd >= 0
            ? new VirtualCpu(id, new FileDescriptor(fd), Kvm.VcpuMapBytes)
            : throw LinuxException.FromLastError($"create vCPU {id}", $"KVM allows {Kvm.MaxVcpus} vCPUs here.");
    }

    /// <summary>Closes the virtual machine.</summary>
    public void Dispose() => Descriptor.Dispose();
}
