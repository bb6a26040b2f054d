using System.Runtime.InteropServices;
using System.Text;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>A vCPU's registers as a person reads them.</summary>
internal static class RegisterText
{
    /// <summary>In the order of <c>struct kvm_regs</c>.</summary>
    private static readonly string[] s_names =
    [
        "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RSP", "RBP", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15", "RIP", "RFLAGS",
    ];

    /// <summary>All general registers and CR2, on one line.</summary>
    internal static string Of(VirtualCpu cpu)
    {
        VcpuRegisters registers = cpu.Registers;
        ReadOnlySpan<ulong> values = MemoryMarshal.Cast<VcpuRegisters, ulong>(new ReadOnlySpan<VcpuRegisters>(in registers));
        var text = new StringBuilder("Registers:");
        for (int i = 0; i < s_names.Length; i++)
        {
            _ = text.Append($" {s_names[i]} 0x{values[i]:x}");
        }

        return text.Append($" CR2 0x{cpu.SystemRegisters.Cr2:x}").ToString();
    }
}
