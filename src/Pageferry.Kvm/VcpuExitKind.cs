namespace Pageferry.Kvm;

/// <summary>Why <see cref="VirtualCpu.Run"/> returned.</summary>
public enum VcpuExitKind
{
    /// <summary>A reason that this library does not know; <see cref="VcpuExit.Reason"/> keeps its number.</summary>
    Unknown,

    /// <summary>A signal or <see cref="VirtualCpu.Kick"/>: EINTR. The guest made no exit of its own.</summary>
    Interrupted,

    /// <summary><c>KVM_EXIT_IO</c>, a read from a port.</summary>
    PortRead,

    /// <summary><c>KVM_EXIT_IO</c>, a write to a port.</summary>
    PortWrite,

    /// <summary><c>KVM_EXIT_MMIO</c>, a read.</summary>
    MmioRead,

    /// <summary><c>KVM_EXIT_MMIO</c>, a write.</summary>
    MmioWrite,

    /// <summary><c>KVM_EXIT_HLT</c>.</summary>
    Halt,

    /// <summary><c>KVM_EXIT_SHUTDOWN</c>: a triple fault.</summary>
    Shutdown,

    /// <summary><c>KVM_EXIT_FAIL_ENTRY</c>: the processor refused the state; <see cref="VcpuExit.Value"/> is its reason.</summary>
    FailEntry,

    /// <summary><c>KVM_EXIT_INTERNAL_ERROR</c>: KVM gave up; <see cref="VcpuExit.Value"/> is its sub-error.</summary>
    InternalError,

    /// <summary><c>KVM_EXIT_SYSTEM_EVENT</c>; <see cref="VcpuExit.Value"/> is its type.</summary>
    SystemEvent,

    /// <summary><c>KVM_EXIT_DIRTY_RING_FULL</c>: the vCPU's <see cref="DirtyRing"/> has to be emptied and reset before it runs again.</summary>
    DirtyRingFull,

    /// <summary><c>KVM_EXIT_MEMORY_FAULT</c> (with -1/EFAULT): <see cref="VcpuExit.Address"/>, <see cref="VcpuExit.Value"/> and <see cref="VcpuExit.Length"/> are its GPA, flags and size.</summary>
    MemoryFault,

    /// <summary>-1/EFAULT without an address: an access to memory that this process can't access itself.</summary>
    Fault,
}
