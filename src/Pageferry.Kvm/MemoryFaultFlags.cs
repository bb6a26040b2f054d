namespace Pageferry.Kvm;

/// <summary>What is known of a memory fault: the flags of <c>KVM_EXIT_MEMORY_FAULT</c>. Bits unknown here are kept.</summary>
[Flags]
public enum MemoryFaultFlags : ulong
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>It read. The kernel does not say; the fault locator does.</summary>
    Read = 1UL << 0,

    /// <summary>It wrote. The kernel does not say; the fault locator does.</summary>
    Write = 1UL << 1,

    /// <summary>It fetched an instruction. The kernel does not say; the fault locator does.</summary>
    Execute = 1UL << 2,

    /// <summary><c>KVM_MEMORY_EXIT_FLAG_PRIVATE</c>: the guest took the page for a private one.</summary>
    Private = 1UL << 3,

    /// <summary><c>KVM_MEMORY_EXIT_FLAG_USERFAULT</c> of the KVM Userfault series: the page is armed.</summary>
    Userfault = 1UL << 4,
}
