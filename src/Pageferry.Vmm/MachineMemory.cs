using Pageferry.Kvm;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Makes the memory of machines: of what the kernel has for everybody, or of what KVM has.</summary>
public static class MachineMemory
{
    /// <summary>Makes memory of any backing.</summary>
    /// <param name="regions">The guest's memory.</param>
    /// <param name="backing">What to make it of.</param>
    /// <returns>The memory, which the caller disposes after its vCPUs have stopped.</returns>
    /// <exception cref="ArgumentException">The regions break a rule; the message says which.</exception>
    /// <exception cref="LinuxException">The host can't map that much, or has no such backing.</exception>
    public static GuestMemory Create(IReadOnlyList<GuestRegion> regions, GuestBacking backing) => backing == GuestBacking.GuestMemfd
        ? GuestMemory.Create(regions, CreateGuestMemfd(regions.Aggregate(0UL, (size, region) => size + region.Length)))
        : GuestMemory.Create(regions, backing);

    /// <summary>Makes a guest_memfd that this process can map: for slots of any virtual machine, as memory of this process.</summary>
    /// <param name="size">Bytes; a page multiple.</param>
    /// <returns>The file, which the caller disposes.</returns>
    /// <exception cref="LinuxException">KVM is refused, or makes none that can be mapped (Linux 6.18).</exception>
    public static MemoryFile CreateGuestMemfd(ulong size)
    {
        // The file keeps the virtual machine that it was made by.
        using var kvm = Kvm.Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        return MemoryFile.FromDescriptor(machine.CreateGuestMemfd(size, GuestMemfdFlags.Mmap | GuestMemfdFlags.InitShared), "guest_memfd", size);
    }
}
