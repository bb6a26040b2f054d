using System.Runtime.InteropServices;

namespace Pageferry.Kvm;

/// <summary>What a vCPU has yet to deliver to its guest: <c>struct kvm_vcpu_events</c>. Flags are 0 or 1.</summary>
/// <remarks>Exceptions that an instruction asks for (INT 3, INTO) are not told: the instruction stands at RIP and raises them again.</remarks>
[StructLayout(LayoutKind.Sequential)]
public record struct VcpuEvents
{
    /// <summary>An exception was being delivered when the vCPU stopped, and is delivered again.</summary>
    public byte ExceptionInjected;

    /// <summary>The exception's number.</summary>
    public byte ExceptionVector;

    /// <summary>The exception pushes an error code.</summary>
    public byte ExceptionHasErrorCode;

    /// <summary>An exception is to be delivered next.</summary>
    public byte ExceptionPending;

    /// <summary>The error code.</summary>
    public uint ExceptionErrorCode;

    /// <summary>An interrupt was being delivered when the vCPU stopped, and is delivered again.</summary>
    public byte InterruptInjected;

    /// <summary>The interrupt's number.</summary>
    public byte InterruptVector;

    /// <summary>The interrupt is an instruction's.</summary>
    public byte InterruptSoft;

    /// <summary>What holds interrupts back for one instruction: <c>KVM_X86_SHADOW_INT_</c>.</summary>
    public byte InterruptShadow;

    /// <summary>A non-maskable interrupt was being delivered when the vCPU stopped, and is delivered again.</summary>
    public byte NmiInjected;

    /// <summary>Non-maskable interrupts that wait.</summary>
    public byte NmiPending;

    /// <summary>Non-maskable interrupts are held back.</summary>
    public byte NmiMasked;

    private readonly byte _padding;

    /// <summary>The vector of a start-up interrupt.</summary>
    public uint SipiVector;

    /// <summary>Which of the rest are valid: <c>KVM_VCPUEVENT_VALID_</c>.</summary>
    public uint Flags;

    // System management interrupts, triple faults, what is reserved, and payloads.
    private readonly ulong _padding0;
    private readonly ulong _padding1;
    private readonly ulong _padding2;
    private readonly ulong _padding3;
    private readonly ulong _padding4;
}
