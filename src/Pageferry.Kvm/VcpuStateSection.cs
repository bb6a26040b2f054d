namespace Pageferry.Kvm;

/// <summary>The parts of a vCPU's state, by the numbers that stand in its binary form.</summary>
public enum VcpuStateSection
{
    /// <summary><c>struct kvm_cpuid2</c>: what the guest was told of its processor.</summary>
    Cpuid = 1,

    /// <summary><c>struct kvm_sregs</c>.</summary>
    SystemRegisters = 2,

    /// <summary><c>struct kvm_xcrs</c>.</summary>
    Xcrs = 3,

    /// <summary><c>struct kvm_xsave</c>, as long as the kernel says.</summary>
    Xsave = 4,

    /// <summary><c>struct kvm_msrs</c> with the entries of the kernel's own list that could be read.</summary>
    Msrs = 5,

    /// <summary><c>struct kvm_debugregs</c>.</summary>
    DebugRegisters = 6,

    /// <summary><c>struct kvm_vcpu_events</c>: exceptions, interrupts and NMIs under way.</summary>
    Events = 7,

    /// <summary><c>struct kvm_mp_state</c>.</summary>
    MpState = 8,

    /// <summary><c>struct kvm_regs</c>.</summary>
    Registers = 9,

    /// <summary><c>struct kvm_lapic_state</c>; only where the virtual machine has interrupt controllers in the kernel.</summary>
    Lapic = 10,

    /// <summary>
    /// The virtual machine's clock in nanoseconds, 8 bytes, when the vCPU was read; only where there is a <see cref="Lapic"/>. It goes on from there.
    /// </summary>
    Clock = 11,
}
