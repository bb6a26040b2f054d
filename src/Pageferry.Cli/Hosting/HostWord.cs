using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>The words for what runs a guest, in options and in JSON.</summary>
internal static class HostWord
{
    /// <summary>KVM where it can be used, else threads.</summary>
    internal const string Auto = "auto";

    /// <summary>KVM, or fail saying why it can't be used.</summary>
    internal const string Kvm = "kvm";

    /// <summary>Ordinary threads that do what the built-in guests do.</summary>
    internal const string Threads = "threads";

    /// <summary>The word for a host.</summary>
    /// <param name="host">What runs the guest.</param>
    /// <returns><see cref="Kvm"/> or <see cref="Threads"/>.</returns>
    internal static string Of(MachineHost host) => host == MachineHost.Kvm ? Kvm : Threads;
}
