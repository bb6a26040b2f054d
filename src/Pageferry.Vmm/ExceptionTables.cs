using System.Buffers.Binary;
using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>
/// What a guest starts with for the processor's exceptions: a handler for each that halts, so that the VMM can say which exception it was and where. Without
/// them an exception would shut the vCPU down without a word. A guest that handles exceptions brings tables of its own.
/// </summary>
internal static class ExceptionTables
{
    /// <summary>One gate for each of the processor's exceptions.</summary>
    internal const int Vectors = 32;

    /// <summary>Bytes of the IDT.</summary>
    internal const int IdtBytes = Vectors * GateBytes;

    /// <summary>Bytes between the handlers of two vectors.</summary>
    private const ulong HandlerBytes = 16;

    private const int GateBytes = 16;
    private const int TssRsp0 = 0x04;
    private const int TssIst1 = 0x24;
    private const ushort GatePresentInterruptIst1 = 0x8E01;
    private const byte Hlt = 0xF4;

    /// <summary>The vectors whose frame begins with an error code.</summary>
    private const uint WithErrorCode = 1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17 | 1u << 21 | 1u << 29 | 1u << 30;

    private static readonly string[] s_names =
    [
        "division error", "debug exception", "non-maskable interrupt", "breakpoint", "overflow", "bound exceeded", "invalid opcode", "no FPU",
        "double fault", "coprocessor overrun", "invalid TSS", "segment not present", "stack fault", "general protection fault", "page fault", "reserved exception",
        "x87 exception", "alignment check", "machine check", "SIMD exception", "virtualization exception", "control protection exception",
    ];

    /// <summary>Writes gates, handlers and a TSS for each vCPU.</summary>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="vcpuCount">How many vCPUs.</param>
    internal static void Write(GuestMemory memory, int vcpuCount)
    {
        Span<byte> idt = stackalloc byte[IdtBytes];
        Span<byte> handlers = stackalloc byte[Vectors * (int)HandlerBytes];
        idt.Clear();
        handlers.Fill(Hlt);
        for (int vector = 0; vector < Vectors; vector++)
        {
            // The handlers lie in the lowest 64 KiB: the upper parts of the offset are 0.
            Span<byte> gate = idt[(vector * GateBytes)..];
            BinaryPrimitives.WriteUInt16LittleEndian(gate, (ushort)(BootLayout.Handlers + ((ulong)vector * HandlerBytes)));
            BinaryPrimitives.WriteUInt16LittleEndian(gate[2..], BootLayout.KernelCode);
            BinaryPrimitives.WriteUInt16LittleEndian(gate[4..], GatePresentInterruptIst1);
        }

        memory.Write(BootLayout.Idt, idt);
        memory.Write(BootLayout.Handlers, handlers);
        Span<byte> tss = stackalloc byte[BootLayout.TssBytes];
        for (int vcpu = 0; vcpu < vcpuCount; vcpu++)
        {
            tss.Clear();
            BinaryPrimitives.WriteUInt64LittleEndian(tss[TssRsp0..], StackEnd(vcpu));
            BinaryPrimitives.WriteUInt64LittleEndian(tss[TssIst1..], StackEnd(vcpu));
            memory.Write(BootLayout.TssOf(vcpu), tss);
        }
    }

    /// <summary>What a vCPU that halted has to say if it halted in a handler.</summary>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="cpu">The vCPU.</param>
    /// <returns>The exception, where it happened and the registers; null if the vCPU halted elsewhere.</returns>
    internal static string? TryDescribe(GuestMemory memory, VirtualCpu cpu)
    {
        VcpuRegisters registers = cpu.Registers;
        ulong vector = (registers.Rip - BootLayout.Handlers) / HandlerBytes;
        if (registers.Rip < BootLayout.Handlers || vector >= Vectors || registers.Rsp >= StackEnd(cpu.Id) || registers.Rsp < BootLayout.ExceptionStackOf(cpu.Id))
        {
            return null;
        }

        // The frame: an error code or not, RIP, CS, RFLAGS, RSP, SS.
        Span<byte> frame = stackalloc byte[(int)(StackEnd(cpu.Id) - registers.Rsp)];
        memory.Read(registers.Rsp, frame);
        string name = vector < (ulong)s_names.Length ? s_names[vector] : "reserved exception";
        string code = string.Empty;
        if (((WithErrorCode >> (int)vector) & 1) != 0)
        {
            code = $", error code 0x{BinaryPrimitives.ReadUInt64LittleEndian(frame):x}";
            frame = frame[sizeof(ulong)..];
        }

        return $"met exception {vector} ({name}{code}) at RIP 0x{BinaryPrimitives.ReadUInt64LittleEndian(frame):x} with RSP 0x{BinaryPrimitives.ReadUInt64LittleEndian(frame[24..]):x}. {RegisterText.Of(cpu)}";
    }

    private static ulong StackEnd(int vcpu) => BootLayout.ExceptionStackOf(vcpu) + BootLayout.ExceptionStackBytes;
}
