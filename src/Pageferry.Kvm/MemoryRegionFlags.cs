namespace Pageferry.Kvm;

/// <summary>What a memory slot can do: <c>KVM_MEM_</c>.</summary>
[Flags]
public enum MemoryRegionFlags
{
    /// <summary>Ordinary memory.</summary>
    None = 0,

    /// <summary><c>KVM_MEM_LOG_DIRTY_PAGES</c>.</summary>
    LogDirtyPages = 1,

    /// <summary><c>KVM_MEM_READONLY</c>: a write is an MMIO exit.</summary>
    ReadOnly = 2,
}
