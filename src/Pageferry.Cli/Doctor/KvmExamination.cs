using System.Runtime.InteropServices;
using Pageferry.Kvm;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>What KVM can do here.</summary>
internal sealed record KvmExamination
{
    /// <summary>Whether <c>/dev/kvm</c> is there.</summary>
    public required bool Present { get; init; }

    /// <summary>Whether this process can make virtual machines.</summary>
    public required bool Usable { get; init; }

    /// <summary>Why not and what to do; null when it can.</summary>
    public string? Error { get; init; }

    /// <summary>What it offers of what matters here, by the C names without <c>KVM_CAP_</c>.</summary>
    public required IReadOnlyList<string> Capabilities { get; init; }

    /// <summary>How it runs guests, as far as can be told: <c>intel-vmx</c>, <c>amd-svm</c>, <c>software (pvm)</c>, <c>arm64</c> or <c>unknown</c>.</summary>
    public string? Kind { get; init; }

    /// <summary>Whether this machine is a virtual machine itself.</summary>
    public required bool Nested { get; init; }

    /// <summary>The most virtual CPUs that one guest can have; null when not usable.</summary>
    public int? MaxVcpus { get; init; }

    private static IEnumerable<(KvmCapability Capability, string Name)> Names =>
    [
        (KvmCapability.IrqChip, "IRQCHIP"),
        (KvmCapability.SyncMmu, "SYNC_MMU"),
        (KvmCapability.Xsave, "XSAVE"),
        (KvmCapability.Xcrs, "XCRS"),
        (KvmCapability.SyncRegisters, "SYNC_REGS"),
        (KvmCapability.ImmediateExit, "IMMEDIATE_EXIT"),
        (KvmCapability.ManualDirtyLogProtect, "MANUAL_DIRTY_LOG_PROTECT2"),
        (KvmCapability.DirtyLogRing, "DIRTY_LOG_RING"),
        (KvmCapability.DirtyLogRingAcquireRelease, "DIRTY_LOG_RING_ACQ_REL"),
        (KvmCapability.ExitOnEmulationFailure, "EXIT_ON_EMULATION_FAILURE"),
        (KvmCapability.Xsave2, "XSAVE2"),
        (KvmCapability.MemoryFaultInfo, "MEMORY_FAULT_INFO"),
        (KvmCapability.GuestMemfd, "GUEST_MEMFD"),
        (KvmCapability.GuestMemfdFlags, "GUEST_MEMFD_FLAGS"),
    ];

    /// <summary>Why KVM can't be used.</summary>
    /// <returns>What was tried, the kernel's answer and what to do; null when it can be used.</returns>
    internal static string? WhyNot() => Ask(_ => null);

    /// <summary>Why KVM can't track what guests write by dirty rings.</summary>
    /// <returns>What was tried, the kernel's answer and what to do; null when it can.</returns>
    internal static string? WhyNoDirtyRing() => Ask(kvm => kvm.CheckExtension(KvmCapability.DirtyLogRing) > 0 || kvm.CheckExtension(KvmCapability.DirtyLogRingAcquireRelease) > 0
        ? null
        : "This KVM has no dirty ring: it answers 0 for KVM_CAP_DIRTY_LOG_RING and KVM_CAP_DIRTY_LOG_RING_ACQ_REL. Linux 5.11 or later has it on x86; --dirty-tracking log needs none.");

    /// <summary>Why KVM doesn't make userfault exits itself.</summary>
    /// <returns>What was tried, the kernel's answer and what to do; null when it does.</returns>
    internal static string? WhyNotUserfault() => Ask(kvm => kvm.ProbeUserfault()?.Message);

    /// <summary>Examines this machine.</summary>
    /// <returns>What was found.</returns>
    internal static KvmExamination Examine()
    {
        bool present = File.Exists("/dev/kvm");
        bool nested = IsVirtualMachine();
        try
        {
            using var kvm = Pageferry.Kvm.Kvm.Open();
            return new KvmExamination
            {
                Present = present,
                Usable = true,
                Nested = nested,
                Kind = KindOf(),
                MaxVcpus = kvm.MaxVcpus,
                Capabilities = [.. Names.Where(entry => kvm.CheckExtension(entry.Capability) > 0).Select(entry => entry.Name)],
            };
        }
        catch (Exception e) when (e is LinuxException or NotSupportedException)
        {
            return new KvmExamination { Present = present, Usable = false, Nested = nested, Error = e.Message, Capabilities = [] };
        }
    }

    private static string? Ask(Func<Pageferry.Kvm.Kvm, string?> question)
    {
        try
        {
            using var kvm = Pageferry.Kvm.Kvm.Open();
            return question(kvm);
        }
        catch (Exception e) when (e is LinuxException or NotSupportedException)
        {
            return e.Message;
        }
    }

    // The module that answers /dev/kvm is what tells; a kernel with KVM built in lists it too if it has parameters.
    private static string KindOf()
    {
        foreach ((string module, string kind) in (ReadOnlySpan<(string, string)>)[("kvm_intel", "intel-vmx"), ("kvm_amd", "amd-svm"), ("kvm_pvm", "software (pvm)")])
        {
            if (Directory.Exists($"/sys/module/{module}"))
            {
                return kind;
            }
        }

        return RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? "arm64" : "unknown";
    }

    private static bool IsVirtualMachine()
    {
        try
        {
            return File.ReadLines("/proc/cpuinfo").Any(line =>
                line.StartsWith("flags", StringComparison.Ordinal) && line.Split(' ').Contains("hypervisor", StringComparer.Ordinal));
        }
        catch (IOException)
        {
            return false;
        }
    }
}
