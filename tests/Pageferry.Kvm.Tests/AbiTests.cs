using System.Collections;
using System.Reflection;
using System.Runtime.InteropServices;

namespace Pageferry.Kvm.Tests;

/// <summary>
/// Every number and layout that we share with the kernel is what the C compiler makes of the kernel's headers. A constant, field or structure that is
/// added without a pin fails here.
/// </summary>
[Trait("Needs", "gcc")]
public class AbiTests
{
    /// <summary>Newer than the headers of some distributions: what linux/kvm.h has in Linux 6.8, or in those that are named.</summary>
    private static readonly Dictionary<string, ulong> s_newer = new(StringComparer.Ordinal)
    {
        ["KVM_CAP_MEMORY_FAULT_INFO"] = 232,
        ["KVM_CAP_GUEST_MEMFD"] = 234,
        ["KVM_EXIT_MEMORY_FAULT"] = 39,
        ["KVM_CREATE_GUEST_MEMFD"] = 0xc040aed4,
        ["sizeof(struct kvm_create_guest_memfd)"] = 64,
        ["offsetof(struct kvm_create_guest_memfd, size)"] = 0,
        ["offsetof(struct kvm_create_guest_memfd, flags)"] = 8,
        ["KVM_SET_USER_MEMORY_REGION2"] = 0x40a0ae49,
        ["sizeof(struct kvm_userspace_memory_region2)"] = 160,
        ["offsetof(struct kvm_userspace_memory_region2, slot)"] = 0,
        ["offsetof(struct kvm_userspace_memory_region2, flags)"] = 4,
        ["offsetof(struct kvm_userspace_memory_region2, guest_phys_addr)"] = 8,
        ["offsetof(struct kvm_userspace_memory_region2, memory_size)"] = 16,
        ["offsetof(struct kvm_userspace_memory_region2, userspace_addr)"] = 24,
        ["offsetof(struct kvm_userspace_memory_region2, guest_memfd_offset)"] = 32,
        ["offsetof(struct kvm_userspace_memory_region2, guest_memfd)"] = 40,
        ["offsetof(struct kvm_userspace_memory_region2, pad1)"] = 44,

        // Linux 6.18.
        ["KVM_CAP_GUEST_MEMFD_FLAGS"] = 244,
        ["GUEST_MEMFD_FLAG_MMAP"] = 1 << 0,
        ["GUEST_MEMFD_FLAG_INIT_SHARED"] = 1 << 1,
        ["KVM_MEMORY_EXIT_FLAG_PRIVATE"] = 1 << 3,

        // In no mainline kernel: the KVM Userfault series, and for the accesses the one before it (Exit on missing).
        ["KVM_MEMORY_EXIT_FLAG_READ"] = 1 << 0,
        ["KVM_MEMORY_EXIT_FLAG_WRITE"] = 1 << 1,
        ["KVM_MEMORY_EXIT_FLAG_EXEC"] = 1 << 2,
        ["KVM_MEMORY_EXIT_FLAG_USERFAULT"] = 1 << 4,
        ["KVM_MEM_USERFAULT"] = 1 << 3,
        ["offsetof(struct kvm_userspace_memory_region2, userfault_bitmap)"] = 48,
    };

    /// <summary>Our constants whose names are not the kernel's. All others are asked for by their own name.</summary>
    private static readonly Dictionary<string, string> s_expressions = new(StringComparer.Ordinal)
    {
        ["RunImmediateExit"] = "offsetof(struct kvm_run, immediate_exit)",
        ["RunExitReason"] = "offsetof(struct kvm_run, exit_reason)",
        ["RunIoDirection"] = "offsetof(struct kvm_run, io.direction)",
        ["RunIoSize"] = "offsetof(struct kvm_run, io.size)",
        ["RunIoPort"] = "offsetof(struct kvm_run, io.port)",
        ["RunIoCount"] = "offsetof(struct kvm_run, io.count)",
        ["RunIoDataOffset"] = "offsetof(struct kvm_run, io.data_offset)",
        ["RunMmioAddress"] = "offsetof(struct kvm_run, mmio.phys_addr)",
        ["RunMmioData"] = "offsetof(struct kvm_run, mmio.data)",
        ["RunMmioLength"] = "offsetof(struct kvm_run, mmio.len)",
        ["RunMmioIsWrite"] = "offsetof(struct kvm_run, mmio.is_write)",
        ["RunFailEntryReason"] = "offsetof(struct kvm_run, fail_entry.hardware_entry_failure_reason)",
        ["RunInternalSuberror"] = "offsetof(struct kvm_run, internal.suberror)",
        ["RunSystemEventType"] = "offsetof(struct kvm_run, system_event.type)",

        // struct kvm_run's memory_fault is as new as its exit reason: flags, gpa and size lie one after the other in the union.
        ["RunMemoryFaultFlags"] = "offsetof(struct kvm_run, hw)",
        ["RunMemoryFaultAddress"] = "offsetof(struct kvm_run, hw) + 8",
        ["RunMemoryFaultSize"] = "offsetof(struct kvm_run, hw) + 16",
        ["RunExitBytes"] = "offsetof(struct kvm_run, hw) + 64",
        ["RunValidRegisters"] = "offsetof(struct kvm_run, kvm_valid_regs)",
        ["RunSynchronized"] = "offsetof(struct kvm_run, s)",
        ["RegistersBytes"] = "sizeof(struct kvm_regs)",
        ["SystemRegistersBytes"] = "sizeof(struct kvm_sregs)",
        ["CpuidHeaderBytes"] = "offsetof(struct kvm_cpuid2, entries)",
        ["CpuidEntryBytes"] = "sizeof(struct kvm_cpuid_entry2)",
        ["MsrsHeaderBytes"] = "offsetof(struct kvm_msrs, entries)",
        ["MsrEntryBytes"] = "sizeof(struct kvm_msr_entry)",
        ["MsrEntryData"] = "offsetof(struct kvm_msr_entry, data)",
        ["MsrListHeaderBytes"] = "offsetof(struct kvm_msr_list, indices)",
        ["SignalMaskHeaderBytes"] = "offsetof(struct kvm_signal_mask, sigset)",
        ["XsaveBytes"] = "sizeof(struct kvm_xsave)",
        ["XcrsBytes"] = "sizeof(struct kvm_xcrs)",
        ["XcrsFirstValue"] = "offsetof(struct kvm_xcrs, xcrs[0].value)",
        ["DebugRegistersBytes"] = "sizeof(struct kvm_debugregs)",
        ["EventsBytes"] = "sizeof(struct kvm_vcpu_events)",
        ["MpStateBytes"] = "sizeof(struct kvm_mp_state)",
        ["LapicBytes"] = "sizeof(struct kvm_lapic_state)",
        ["DirtyRingEntryBytes"] = "sizeof(struct kvm_dirty_gfn)",
        ["SigsetWords"] = "sizeof(sigset_t) / sizeof(__u64)",
    };

    /// <summary>Our enumerations whose members are the kernel's.</summary>
    private static readonly Dictionary<Enum, string> s_members = new()
    {
        [KvmCapability.IrqChip] = "KVM_CAP_IRQCHIP",
        [KvmCapability.RecommendedVcpus] = "KVM_CAP_NR_VCPUS",
        [KvmCapability.MemorySlots] = "KVM_CAP_NR_MEMSLOTS",
        [KvmCapability.SyncMmu] = "KVM_CAP_SYNC_MMU",
        [KvmCapability.AdjustClock] = "KVM_CAP_ADJUST_CLOCK",
        [KvmCapability.Xsave] = "KVM_CAP_XSAVE",
        [KvmCapability.Xcrs] = "KVM_CAP_XCRS",
        [KvmCapability.MaxVcpus] = "KVM_CAP_MAX_VCPUS",
        [KvmCapability.ImmediateExit] = "KVM_CAP_IMMEDIATE_EXIT",
        [KvmCapability.SyncRegisters] = "KVM_CAP_SYNC_REGS",
        [KvmCapability.ManualDirtyLogProtect] = "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
        [KvmCapability.DirtyLogRing] = "KVM_CAP_DIRTY_LOG_RING",
        [KvmCapability.DirtyLogRingAcquireRelease] = "KVM_CAP_DIRTY_LOG_RING_ACQ_REL",
        [KvmCapability.ExitOnEmulationFailure] = "KVM_CAP_EXIT_ON_EMULATION_FAILURE",
        [KvmCapability.Xsave2] = "KVM_CAP_XSAVE2",
        [KvmCapability.MemoryFaultInfo] = "KVM_CAP_MEMORY_FAULT_INFO",
        [KvmCapability.GuestMemfd] = "KVM_CAP_GUEST_MEMFD",
        [KvmCapability.GuestMemfdFlags] = "KVM_CAP_GUEST_MEMFD_FLAGS",
        [GuestMemfdFlags.None] = "(0)",
        [GuestMemfdFlags.Mmap] = "GUEST_MEMFD_FLAG_MMAP",
        [GuestMemfdFlags.InitShared] = "GUEST_MEMFD_FLAG_INIT_SHARED",
        [ClockFlags.None] = "(0)",
        [ClockFlags.TscStable] = "KVM_CLOCK_TSC_STABLE",
        [ClockFlags.Realtime] = "KVM_CLOCK_REALTIME",
        [ClockFlags.HostTsc] = "KVM_CLOCK_HOST_TSC",
        [MemoryFaultFlags.None] = "(0)",
        [MemoryFaultFlags.Read] = "KVM_MEMORY_EXIT_FLAG_READ",
        [MemoryFaultFlags.Write] = "KVM_MEMORY_EXIT_FLAG_WRITE",
        [MemoryFaultFlags.Execute] = "KVM_MEMORY_EXIT_FLAG_EXEC",
        [MemoryFaultFlags.Private] = "KVM_MEMORY_EXIT_FLAG_PRIVATE",
        [MemoryFaultFlags.Userfault] = "KVM_MEMORY_EXIT_FLAG_USERFAULT",
        [MemoryRegionFlags.None] = "(0)",
        [MemoryRegionFlags.LogDirtyPages] = "KVM_MEM_LOG_DIRTY_PAGES",
        [MemoryRegionFlags.ReadOnly] = "KVM_MEM_READONLY",
    };

    /// <summary>Public structures that the kernel fills, and their C names.</summary>
    private static readonly Dictionary<Type, string> s_structures = new()
    {
        [typeof(VcpuRegisters)] = "kvm_regs",
        [typeof(VcpuSystemRegisters)] = "kvm_sregs",
        [typeof(VcpuSegment)] = "kvm_segment",
        [typeof(VcpuDescriptorTable)] = "kvm_dtable",
        [typeof(VcpuEvents)] = "kvm_vcpu_events",
        [typeof(VcpuContext)] = "kvm_sync_regs",
    };

    [Fact]
    public void Every_constant_is_the_compilers() =>
        Compare(Compiler.Constants(typeof(Interop)).Select(constant => (constant.Name, s_expressions.GetValueOrDefault(constant.Name, constant.Name), constant.Value)));

    [Fact]
    public void No_pin_is_left_over()
    {
        HashSet<string> names = Compiler.Constants(typeof(Interop)).Select(constant => constant.Name).ToHashSet(StringComparer.Ordinal);
        Assert.DoesNotContain(s_expressions.Keys, name => !names.Contains(name));
    }

    [Fact]
    public void Every_member_of_a_kernel_enumeration_is_the_compilers()
    {
        IEnumerable<Type> enumerations = s_members.Keys.Select(member => member.GetType()).Distinct();
        Enum[] members = [.. enumerations.SelectMany(type => ((IEnumerable)Enum.GetValues(type)).Cast<Enum>())];
        Assert.DoesNotContain(members, member => !s_members.ContainsKey(member));
        Compare(members.Select(member => ($"{member.GetType().Name}.{member}", s_members[member], (ulong)Convert.ToInt64(member))));
    }

    [Fact]
    public void Every_public_enumeration_is_pinned_or_our_own()
    {
        Type[] ours = [typeof(VcpuExitKind), typeof(VcpuStateSection)];
        HashSet<Type> pinned = [.. s_members.Keys.Select(member => member.GetType())];
        Assert.DoesNotContain(typeof(Kvm).Assembly.GetExportedTypes(), type => type.IsEnum && !pinned.Contains(type) && !ours.Contains(type));
    }

    [Fact]
    public void Every_structure_has_the_compilers_size_and_offsets()
    {
        IEnumerable<(Type Type, string Name)> structures = Compiler.Structures(typeof(Interop))
            .Select(type => (Type: type, type.Name))
            .Concat(s_structures.Select(pair => (pair.Key, pair.Value)));
        Compare(structures.SelectMany(structure => Layout(structure.Type, structure.Name)));
    }

    [Fact]
    public void Every_public_structure_with_a_layout_is_pinned()
    {
        IEnumerable<Type> unpinned = typeof(Kvm).Assembly.GetExportedTypes()
            .Where(type => type is { IsValueType: true, IsEnum: false } && type.GetFields().Any(field => !field.IsStatic) && !s_structures.ContainsKey(type));
        Assert.Empty(unpinned);
    }

    [Fact]
    public void Sections_kept_as_bytes_are_as_long_as_their_structures()
    {
        Assert.Equal(Interop.RegistersBytes, Marshal.SizeOf<VcpuRegisters>());
        Assert.Equal(Interop.SystemRegistersBytes, Marshal.SizeOf<VcpuSystemRegisters>());
    }

    private static IEnumerable<(string Name, string Expression, ulong Ours)> Layout(Type type, string structure)
    {
        yield return (structure, $"sizeof(struct {structure})", (ulong)Marshal.SizeOf(type));
        foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public))
        {
            // Padding has no name to ask for; the size and the fields behind it hold it in place.
            if (field.Name.StartsWith("_pad", StringComparison.Ordinal))
            {
                continue;
            }

            yield return ($"{structure}.{field.Name}", $"offsetof(struct {structure}, {CName(type, field.Name)})", (ulong)Marshal.OffsetOf(type, field.Name));
        }
    }

    private static string CName(Type type, string field) => field switch
    {
        _ when type.IsNested => field,
        nameof(VcpuSystemRegisters.ApicBase) => "apic_base",
        nameof(VcpuContext.Registers) => "regs",
        nameof(VcpuContext.SystemRegisters) => "sregs",
        nameof(VcpuEvents.ExceptionInjected) => "exception.injected",
        nameof(VcpuEvents.ExceptionVector) => "exception.nr",
        nameof(VcpuEvents.ExceptionHasErrorCode) => "exception.has_error_code",
        nameof(VcpuEvents.ExceptionPending) => "exception.pending",
        nameof(VcpuEvents.ExceptionErrorCode) => "exception.error_code",
        nameof(VcpuEvents.InterruptInjected) => "interrupt.injected",
        nameof(VcpuEvents.InterruptVector) => "interrupt.nr",
        nameof(VcpuEvents.InterruptSoft) => "interrupt.soft",
        nameof(VcpuEvents.InterruptShadow) => "interrupt.shadow",
        nameof(VcpuEvents.NmiInjected) => "nmi.injected",
        nameof(VcpuEvents.NmiPending) => "nmi.pending",
        nameof(VcpuEvents.NmiMasked) => "nmi.masked",
        nameof(VcpuEvents.SipiVector) => "sipi_vector",
        _ when field.StartsWith("InterruptBitmap", StringComparison.Ordinal) => $"interrupt_bitmap[{field[^1]}]",
        _ => field.ToLowerInvariant(),
    };

    private static void Compare(IEnumerable<(string Name, string Expression, ulong Ours)> pins)
    {
        (string Name, string Expression, ulong Ours)[] all = [.. pins];
        Assert.NotEmpty(all);

        // A macro may be unknown to the headers; a structure, or a field of one, would stop the compiler.
        IEnumerable<string> asked = all.Select(pin => pin.Expression).Where(expression => !expression.Contains('(', StringComparison.Ordinal) || !s_newer.ContainsKey(expression));
        Dictionary<string, ulong> answers = Compiler.Evaluate(["linux/kvm.h", "signal.h"], asked.Distinct(StringComparer.Ordinal));
        Assert.Empty(all
            .Select(pin => (pin, Known: answers.TryGetValue(pin.Expression, out ulong theirs) || s_newer.TryGetValue(pin.Expression, out theirs), Theirs: theirs))
            .Where(answer => !answer.Known || answer.Theirs != answer.pin.Ours)
            .Select(answer => $"{answer.pin.Name} is 0x{answer.pin.Ours:x}; {answer.pin.Expression} is {(answer.Known ? $"0x{answer.Theirs:x}" : "unknown")}"));
    }
}
