using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: DisableRuntimeMarshalling]

namespace Pageferry.Kvm;

/// <summary>The ioctl numbers and constants of linux/kvm.h, by their C names.</summary>
internal static partial class Interop
{
    internal const int KVM_API_VERSION = 12;

    internal const nuint KVM_GET_API_VERSION = 0xae00;
    internal const nuint KVM_CREATE_VM = 0xae01;
    internal const nuint KVM_GET_MSR_INDEX_LIST = 0xc004ae02;
    internal const nuint KVM_CHECK_EXTENSION = 0xae03;
    internal const nuint KVM_GET_VCPU_MMAP_SIZE = 0xae04;
    internal const nuint KVM_GET_SUPPORTED_CPUID = 0xc008ae05;

    internal const nuint KVM_CREATE_VCPU = 0xae41;
    internal const nuint KVM_GET_DIRTY_LOG = 0x4010ae42;
    internal const nuint KVM_SET_USER_MEMORY_REGION = 0x4020ae46;
    internal const nuint KVM_SET_USER_MEMORY_REGION2 = 0x40a0ae49;
    internal const nuint KVM_CREATE_IRQCHIP = 0xae60;
    internal const nuint KVM_SET_CLOCK = 0x4030ae7b;
    internal const nuint KVM_GET_CLOCK = 0x8030ae7c;
    internal const nuint KVM_ENABLE_CAP = 0x4068aea3;
    internal const nuint KVM_CLEAR_DIRTY_LOG = 0xc018aec0;
    internal const nuint KVM_RESET_DIRTY_RINGS = 0xaec7;
    internal const nuint KVM_CREATE_GUEST_MEMFD = 0xc040aed4;

    internal const nuint KVM_RUN = 0xae80;
    internal const nuint KVM_GET_REGS = 0x8090ae81;
    internal const nuint KVM_SET_REGS = 0x4090ae82;
    internal const nuint KVM_GET_SREGS = 0x8138ae83;
    internal const nuint KVM_SET_SREGS = 0x4138ae84;
    internal const nuint KVM_GET_MSRS = 0xc008ae88;
    internal const nuint KVM_SET_MSRS = 0x4008ae89;
    internal const nuint KVM_SET_SIGNAL_MASK = 0x4004ae8b;
    internal const nuint KVM_GET_LAPIC = 0x8400ae8e;
    internal const nuint KVM_SET_LAPIC = 0x4400ae8f;
    internal const nuint KVM_SET_CPUID2 = 0x4008ae90;
    internal const nuint KVM_GET_CPUID2 = 0xc008ae91;
    internal const nuint KVM_GET_MP_STATE = 0x8004ae98;
    internal const nuint KVM_SET_MP_STATE = 0x4004ae99;
    internal const nuint KVM_GET_VCPU_EVENTS = 0x8040ae9f;
    internal const nuint KVM_SET_VCPU_EVENTS = 0x4040aea0;
    internal const nuint KVM_GET_DEBUGREGS = 0x8080aea1;
    internal const nuint KVM_SET_DEBUGREGS = 0x4080aea2;
    internal const nuint KVM_GET_XSAVE = 0x9000aea4;
    internal const nuint KVM_SET_XSAVE = 0x5000aea5;
    internal const nuint KVM_GET_XCRS = 0x8188aea6;
    internal const nuint KVM_SET_XCRS = 0x4188aea7;
    internal const nuint KVM_GET_TSC_KHZ = 0xaea3;
    internal const nuint KVM_GET_XSAVE2 = 0x9000aecf;

    internal const uint KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1;

    internal const uint KVM_MEM_USERFAULT = 8;

    /// <summary>Where a vCPU's dirty ring is mapped, in pages of its file descriptor.</summary>
    internal const ulong KVM_DIRTY_LOG_PAGE_OFFSET = 64;

    internal const uint KVM_DIRTY_GFN_F_DIRTY = 1;
    internal const uint KVM_DIRTY_GFN_F_RESET = 2;
    internal const uint KVM_DIRTY_GFN_F_MASK = 3;

    internal const uint KVM_EXIT_IO = 2;
    internal const uint KVM_EXIT_HLT = 5;
    internal const uint KVM_EXIT_MMIO = 6;
    internal const uint KVM_EXIT_SHUTDOWN = 8;
    internal const uint KVM_EXIT_FAIL_ENTRY = 9;
    internal const uint KVM_EXIT_INTERNAL_ERROR = 17;
    internal const uint KVM_EXIT_SYSTEM_EVENT = 24;
    internal const uint KVM_EXIT_DIRTY_RING_FULL = 31;
    internal const uint KVM_EXIT_MEMORY_FAULT = 39;

    internal const byte KVM_EXIT_IO_OUT = 1;

    internal const ulong KVM_SYNC_X86_REGS = 1;
    internal const ulong KVM_SYNC_X86_SREGS = 2;
    internal const ulong KVM_SYNC_X86_EVENTS = 4;

    /// <summary>Offsets in struct kvm_run, and the bytes of it that an exit is read from.</summary>
    internal const int RunImmediateExit = 1;
    internal const int RunExitReason = 8;
    internal const int RunIoDirection = 32;
    internal const int RunIoSize = 33;
    internal const int RunIoPort = 34;
    internal const int RunIoCount = 36;
    internal const int RunIoDataOffset = 40;
    internal const int RunMmioAddress = 32;
    internal const int RunMmioData = 40;
    internal const int RunMmioLength = 48;
    internal const int RunMmioIsWrite = 52;
    internal const int RunFailEntryReason = 32;
    internal const int RunInternalSuberror = 32;
    internal const int RunSystemEventType = 32;
    internal const int RunMemoryFaultFlags = 32;
    internal const int RunMemoryFaultAddress = 40;
    internal const int RunMemoryFaultSize = 48;
    internal const int RunExitBytes = 96;
    internal const int RunValidRegisters = 288;
    internal const int RunSynchronized = 304;

    /// <summary>Sizes of the structures that are kept as bytes: struct kvm_regs and so on.</summary>
    internal const int RegistersBytes = 144;
    internal const int SystemRegistersBytes = 312;
    internal const int CpuidHeaderBytes = 8;
    internal const int CpuidEntryBytes = 40;
    internal const int MsrsHeaderBytes = 8;
    internal const int MsrEntryBytes = 16;
    internal const int MsrEntryData = 8;
    internal const int MsrListHeaderBytes = 4;
    internal const int SignalMaskHeaderBytes = 4;
    internal const int XsaveBytes = 4096;
    internal const int XcrsBytes = 392;
    internal const int XcrsFirstValue = 16;
    internal const int DebugRegistersBytes = 128;
    internal const int EventsBytes = 64;
    internal const int MpStateBytes = 4;
    internal const int LapicBytes = 1024;
    internal const int DirtyRingEntryBytes = 16;

    /// <summary>struct kvm_userspace_memory_region.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct kvm_userspace_memory_region
    {
        internal uint slot;
        internal uint flags;
        internal ulong guest_phys_addr;
        internal ulong memory_size;
        internal ulong userspace_addr;
    }

    /// <summary>struct kvm_userspace_memory_region2, as the KVM Userfault series extends it: <c>userfault_bitmap</c> is padding in Linux 6.8.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 160)]
    internal struct kvm_userspace_memory_region2
    {
        internal uint slot;
        internal uint flags;
        internal ulong guest_phys_addr;
        internal ulong memory_size;
        internal ulong userspace_addr;
        internal ulong guest_memfd_offset;
        internal uint guest_memfd;
        internal uint pad1;
        internal ulong userfault_bitmap;
    }

    /// <summary>struct kvm_create_guest_memfd.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 64)]
    internal struct kvm_create_guest_memfd
    {
        internal ulong size;
        internal ulong flags;
    }

    /// <summary>struct kvm_dirty_log.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct kvm_dirty_log
    {
        internal uint slot;
        internal uint padding1;
        internal ulong dirty_bitmap;
    }

    /// <summary>struct kvm_clear_dirty_log.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct kvm_clear_dirty_log
    {
        internal uint slot;
        internal uint num_pages;
        internal ulong first_page;
        internal ulong dirty_bitmap;
    }

    /// <summary>struct kvm_dirty_gfn.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct kvm_dirty_gfn
    {
        internal uint flags;
        internal uint slot;
        internal ulong offset;
    }

    /// <summary>struct kvm_clock_data.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct kvm_clock_data
    {
        internal ulong clock;
        internal uint flags;
        internal uint pad0;
        internal ulong realtime;
        internal ulong host_tsc;
        private readonly ulong _pad1;
        private readonly ulong _pad2;
    }

    /// <summary>struct kvm_enable_cap.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct kvm_enable_cap
    {
        internal uint cap;
        internal uint flags;
        internal fixed ulong args[4];
        internal fixed byte pad[64];
    }
}
