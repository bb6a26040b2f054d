using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>What a machine is made of.</summary>
/// <param name="MemorySize">Guest memory in bytes: a page multiple, at least <see cref="BootLayout.LeastMemory"/>.</param>
/// <param name="VcpuCount">1 to <see cref="BootLayout.MostVcpus"/>, and not above what KVM allows.</param>
/// <param name="Backing">What the memory is made of.</param>
/// <param name="Privilege">Where the guest starts.</param>
/// <param name="Seed">The boot seed that the guest finds in its boot info.</param>
/// <param name="Passes">How many passes a built-in guest makes; 0 for no end.</param>
/// <param name="DirtyTracking">What is to tell which pages the guest writes.</param>
public sealed record MachineConfiguration(
    ulong MemorySize,
    int VcpuCount = 1,
    GuestBacking Backing = GuestBacking.Memfd,
    GuestPrivilege Privilege = GuestPrivilege.User,
    ulong Seed = 1,
    ulong Passes = 0,
    DirtyTracking DirtyTracking = DirtyTracking.Auto);
