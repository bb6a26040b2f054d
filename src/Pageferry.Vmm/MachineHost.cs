namespace Pageferry.Vmm;

/// <summary>What runs a guest.</summary>
public enum MachineHost
{
    /// <summary>KVM.</summary>
    Kvm = 1,

    /// <summary>Ordinary threads, on hosts without KVM: the built-in guests' work in C#.</summary>
    Threads = 2,
}
