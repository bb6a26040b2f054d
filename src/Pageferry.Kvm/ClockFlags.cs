namespace Pageferry.Kvm;

/// <summary>What is known beside a virtual machine's clock: <c>KVM_CLOCK_</c>. Bits that are unknown here are kept.</summary>
[Flags]
public enum ClockFlags : uint
{
    /// <summary>The clock alone.</summary>
    None = 0,

    /// <summary><c>KVM_CLOCK_TSC_STABLE</c>: all vCPUs see the same clock.</summary>
    TscStable = 2,

    /// <summary><c>KVM_CLOCK_REALTIME</c>: <see cref="MachineClock.Realtime"/> was read at the same moment.</summary>
    Realtime = 4,

    /// <summary><c>KVM_CLOCK_HOST_TSC</c>: <see cref="MachineClock.HostTsc"/> was read at the same moment.</summary>
    HostTsc = 8,
}
