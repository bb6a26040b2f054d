using System.Reflection;
using System.Runtime.InteropServices;
using Pageferry.Testing;

namespace Pageferry.Kvm.Tests;

/// <summary>Every constant, size and offset against the C compiler's answer from the system's headers.</summary>
public class AbiTests
{
    private static readonly string[] s_headers = ["signal.h", "linux/kvm.h"];

    /// <summary>What is newer than Linux 6.1's headers, from the kernel's own source.</summary>
    private static readonly Dictionary<string, ulong> s_newer = new(StringComparer.Ordinal)
    {
        ["KVM_EXIT_MEMORY_FAULT"] = 39,
        ["KVM_CAP_MEMORY_FAULT_INFO"] = 232,
        ["KVM_CAP_GUEST_MEMFD"] = 234,
    };

    private static readonly Dictionary<string, string> s_expressions = new(StringComparer.Ordinal)
    {
        ["SigsetWords"] = "sizeof(sigset_t) / 8",
        ["RunImmediateExit"] = "offsetof(struct kvm_run, immediate_exit)",
        ["RunExitReason"] = "offsetof(struct kvm_run, exit_reason)",
        ["RunUnion"] = "offsetof(struct kvm_run, io)",
    };

    private static readonly Dictionary<KvmCapability, string> s_capabilities = new()
    {
        [KvmCapability.IrqChip] = "IRQCHIP",
        [KvmCapability.RecommendedVcpus] = "NR_VCPUS",
        [KvmCapability.MemorySlots] = "NR_MEMSLOTS",
        [KvmCapability.SyncMmu] = "SYNC_MMU",
        [KvmCapability.Xsave] = "XSAVE",
        [KvmCapability.Xcrs] = "XCRS",
        [KvmCapability.MaxVcpus] = "MAX_VCPUS",
        [KvmCapability.ImmediateExit] = "IMMEDIATE_EXIT",
        [KvmCapability.SyncRegisters] = "SYNC_REGS",
        [KvmCapability.ManualDirtyLogProtect] = "MANUAL_DIRTY_LOG_PROTECT2",
        [KvmCapability.DirtyLogRing] = "DIRTY_LOG_RING",
        [KvmCapability.Xsave2] = "XSAVE2",
        [KvmCapability.MemoryFaultInfo] = "MEMORY_FAULT_INFO",
        [KvmCapability.GuestMemfd] = "GUEST_MEMFD",
    };

    [Fact]
    public void Constants_are_the_compilers() =>
        AssertPinned(Compiler.Constants(typeof(Interop)).Select(constant => (s_expressions.GetValueOrDefault(constant.Name, constant.Name), constant.Value)));

    [Fact]
    public void Capabilities_and_flags_are_the_compilers()
    {
        AssertPinned(Enum.GetValues<KvmCapability>().Select(capability => ($"KVM_CAP_{s_capabilities[capability]}", (ulong)capability)));
        AssertPinned([("KVM_MEM_LOG_DIRTY_PAGES", (ulong)MemoryRegionFlags.LogDirtyPages), ("KVM_MEM_READONLY", (ulong)MemoryRegionFlags.ReadOnly)]);
    }

    [Fact]
    public void Structures_have_the_compilers_sizes_and_offsets()
    {
        AssertPinned(Compiler.Structures(typeof(Interop)).SelectMany(type => type
            .GetFields(BindingFlags.Instance | BindingFlags.NonPublic)
            .Select(field => ($"offsetof(struct {type.Name}, {field.Name})", (ulong)Marshal.OffsetOf(type, field.Name)))
            .Append(($"sizeof(struct {type.Name})", (ulong)Marshal.SizeOf(type)))));
        AssertPinned(FieldsOf<VcpuRegisters>("kvm_regs", name => name.ToLowerInvariant()));
        AssertPinned(FieldsOf<VcpuSegment>("kvm_segment", name => name is "_padding" ? "padding" : name.ToLowerInvariant()));
        AssertPinned(FieldsOf<VcpuSystemRegisters>("kvm_sregs", SystemRegisterOf));
        AssertPinned(FieldsOf<VcpuDescriptorTable>("kvm_dtable", name => name.StartsWith('_') ? "padding" : name.ToLowerInvariant()).Where(pair => !pair.Expression.Contains("padding", StringComparison.Ordinal)));
        AssertPinned(
        [
            ("sizeof(struct kvm_lapic_state)", 1024),
            ("sizeof(struct kvm_clock_data)", 48),
            ("offsetof(struct kvm_clock_data, clock)", 0),
            ("sizeof(struct kvm_xcrs)", 392),
            ("offsetof(struct kvm_xcrs, xcrs[0].value)", 16),
            ("sizeof(struct kvm_xsave)", 4096),
            ("sizeof(struct kvm_debugregs)", 128),
            ("sizeof(struct kvm_vcpu_events)", 64),
            ("sizeof(struct kvm_mp_state)", 4),
            ("sizeof(struct kvm_cpuid2)", 8),
            ("sizeof(struct kvm_cpuid_entry2)", 40),
            ("sizeof(struct kvm_msrs)", 8),
            ("sizeof(struct kvm_msr_entry)", 16),
            ("offsetof(struct kvm_msr_entry, data)", 8),
            ("offsetof(struct kvm_run, io.direction)", 32),
            ("offsetof(struct kvm_run, io.size)", 33),
            ("offsetof(struct kvm_run, io.port)", 34),
            ("offsetof(struct kvm_run, io.count)", 36),
            ("offsetof(struct kvm_run, io.data_offset)", 40),
            ("offsetof(struct kvm_run, mmio.phys_addr)", 32),
            ("offsetof(struct kvm_run, mmio.data)", 40),
            ("offsetof(struct kvm_run, mmio.len)", 48),
            ("offsetof(struct kvm_run, mmio.is_write)", 52),
            ("offsetof(struct kvm_run, fail_entry.hardware_entry_failure_reason)", 32),
            ("offsetof(struct kvm_run, internal.suberror)", 32),
            ("offsetof(struct kvm_run, system_event.type)", 32),
        ]);
    }

    private static IEnumerable<(string Expression, ulong Value)> FieldsOf<T>(string structure, Func<string, string> cName) =>
        typeof(T).GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
            .Select(field => ($"offsetof(struct {structure}, {cName(field.Name)})", (ulong)Marshal.OffsetOf<T>(field.Name)))
            .Append(($"sizeof(struct {structure})", (ulong)Marshal.SizeOf<T>()));

    private static string SystemRegisterOf(string name) => name switch
    {
        "ApicBase" => "apic_base",
        _ when name.StartsWith("InterruptBitmap", StringComparison.Ordinal) => $"interrupt_bitmap[{name[^1]}]",
        _ => name.ToLowerInvariant(),
    };

    private static void AssertPinned(IEnumerable<(string Expression, ulong Value)> ours)
    {
        (string Expression, ulong Value)[] pairs = [.. ours];
        Assert.NotEmpty(pairs);
        Dictionary<string, ulong> theirs = Compiler.Evaluate(s_headers, pairs.Select(pair => pair.Expression));
        Assert.All(pairs, pair =>
        {
            bool known = theirs.TryGetValue(pair.Expression, out ulong value) || s_newer.TryGetValue(pair.Expression, out value);
            Assert.True(known, $"Neither the headers nor this test know {pair.Expression}.");
            Assert.True(value == pair.Value, $"{pair.Expression} is 0x{value:x} for the compiler and 0x{pair.Value:x} here.");
        });
    }
}
