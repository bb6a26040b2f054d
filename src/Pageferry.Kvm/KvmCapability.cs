namespace Pageferry.Kvm;

/// <summary>What KVM is asked for by <c>KVM_CHECK_EXTENSION</c>: <c>KVM_CAP_</c>. Any other number can be asked by a cast.</summary>
public enum KvmCapability
{
    /// <summary><c>KVM_CAP_IRQCHIP</c>.</summary>
    IrqChip = 0,

    /// <summary><c>KVM_CAP_NR_VCPUS</c>: the recommended most vCPUs.</summary>
    RecommendedVcpus = 9,

    /// <summary><c>KVM_CAP_NR_MEMSLOTS</c>.</summary>
    MemorySlots = 10,

    /// <summary><c>KVM_CAP_SYNC_MMU</c>: the kernel may unmap guest memory while vCPUs run, which userfaults need.</summary>
    SyncMmu = 16,

    /// <summary><c>KVM_CAP_ADJUST_CLOCK</c>: the <see cref="ClockFlags"/> that the clock knows.</summary>
    AdjustClock = 39,

    /// <summary><c>KVM_CAP_XSAVE</c>.</summary>
    Xsave = 55,

    /// <summary><c>KVM_CAP_XCRS</c>.</summary>
    Xcrs = 56,

    /// <summary><c>KVM_CAP_MAX_VCPUS</c>: the most vCPUs.</summary>
    MaxVcpus = 66,

    /// <summary><c>KVM_CAP_IMMEDIATE_EXIT</c>.</summary>
    ImmediateExit = 136,

    /// <summary><c>KVM_CAP_SYNC_REGS</c>.</summary>
    SyncRegisters = 74,

    /// <summary><c>KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2</c>: the <c>KVM_DIRTY_LOG_</c> flags that can be enabled.</summary>
    ManualDirtyLogProtect = 168,

    /// <summary><c>KVM_CAP_DIRTY_LOG_RING</c>: the most bytes of a vCPU's dirty ring.</summary>
    DirtyLogRing = 192,

    /// <summary><c>KVM_CAP_EXIT_ON_EMULATION_FAILURE</c> (Linux 5.15, x86).</summary>
    ExitOnEmulationFailure = 204,

    /// <summary><c>KVM_CAP_XSAVE2</c>: the size of the XSAVE area in bytes, 0 where KVM_GET_XSAVE's 4096 are enough.</summary>
    Xsave2 = 208,

    /// <summary><c>KVM_CAP_DIRTY_LOG_RING_ACQ_REL</c>: the same, for readers that order their accesses (Linux 6.1).</summary>
    DirtyLogRingAcquireRelease = 223,

    /// <summary><c>KVM_CAP_MEMORY_FAULT_INFO</c>.</summary>
    MemoryFaultInfo = 232,

    /// <summary><c>KVM_CAP_GUEST_MEMFD</c>.</summary>
    GuestMemfd = 234,

    /// <summary><c>KVM_CAP_GUEST_MEMFD_FLAGS</c>: the <see cref="GuestMemfdFlags"/> that a guest_memfd can be made with.</summary>
    GuestMemfdFlags = 244,
}
