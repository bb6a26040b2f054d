namespace Pageferry.Vmm;

/// <summary>What tells which pages a guest writes.</summary>
public enum DirtyTracking
{
    /// <summary>The log where it can be cleared in pieces, as on Linux 5.2 and later; else the ring where KVM has one; else the log.</summary>
    Auto,

    /// <summary>KVM's dirty log: a bit for every page.</summary>
    Log,

    /// <summary>KVM's dirty rings: a list for every vCPU.</summary>
    Ring,

    /// <summary>This process's page tables, for a guest that threads run.</summary>
    Scan,
}
