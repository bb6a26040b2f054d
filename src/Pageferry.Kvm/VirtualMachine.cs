using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>A virtual machine: memory slots and vCPUs.</summary>
public sealed class VirtualMachine : IDisposable
{
    private const int ClockBytes = 48;

    internal VirtualMachine(Kvm kvm, FileDescriptor descriptor)
    {
        Kvm = kvm;
        Descriptor = descriptor;
    }

    /// <summary>The subsystem it was made by.</summary>
    public Kvm Kvm { get; }

    /// <summary>The virtual machine's file descriptor.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Whether the interrupt controllers are the kernel's: <see cref="CreateIrqchip"/> was called.</summary>
    public bool HasIrqchip { get; private set; }

    /// <summary>Reads the guest's paravirtual clock (<c>KVM_GET_CLOCK</c>).</summary>
    /// <returns>Nanoseconds.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public ulong GetClock()
    {
        Span<byte> clock = stackalloc byte[ClockBytes];
        clock.Clear();
        return Interop.Ioctl(Descriptor, Interop.KVM_GET_CLOCK, clock) == 0
            ? BinaryPrimitives.ReadUInt64LittleEndian(clock)
            : throw LinuxException.FromLastError("read the guest's clock");
    }

    /// <summary>Sets the guest's paravirtual clock (<c>KVM_SET_CLOCK</c>).</summary>
    /// <param name="nanoseconds">The time from which it goes on.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void SetClock(ulong nanoseconds)
    {
        Span<byte> clock = stackalloc byte[ClockBytes];
        clock.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(clock, nanoseconds);
        if (Interop.Ioctl(Descriptor, Interop.KVM_SET_CLOCK, clock) != 0)
        {
            throw LinuxException.FromLastError($"set the guest's clock to {nanoseconds} ns");
        }
    }

    /// <summary><c>KVM_CHECK_EXTENSION</c> on the virtual machine.</summary>
    /// <param name="capability">The capability.</param>
    /// <returns>0 when it is not there; else 1 or a number that belongs to it.</returns>
    public int CheckExtension(KvmCapability capability) => Math.Max(0, Interop.Ioctl(Descriptor.Number, Interop.KVM_CHECK_EXTENSION, (nint)capability));

    /// <summary>Makes the kernel emulate PIC, IOAPIC and each vCPU's local APIC (<c>KVM_CREATE_IRQCHIP</c>); before the first vCPU.</summary>
    /// <exception cref="LinuxException">EEXIST: there is one already. EINVAL: there are vCPUs already.</exception>
    public void CreateIrqchip()
    {
        if (Interop.Ioctl(Descriptor.Number, Interop.KVM_CREATE_IRQCHIP, 0) != 0)
        {
            throw LinuxException.FromLastError("create the interrupt controllers of a virtual machine");
        }

        HasIrqchip = true;
    }

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
            : throw new LinuxException($"create vCPU {id}", (Errno)Marshal.GetLastPInvokeError(), $"KVM allows {Kvm.MaxVcpus} vCPUs here.");
    }

    /// <summary>Closes the virtual machine.</summary>
    public void Dispose() => Descriptor.Dispose();
}
