using Iced.Intel;
using Pageferry.Kvm;
using Pageferry.Memory;
using Pageferry.Vmm;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Cli;

/// <summary>
/// A guest that touches each page of a slice once and measures by its time stamp counter how long each touch takes. It reports, waits to be run again, goes
/// over the slice and ends.
/// </summary>
/// <remarks>
/// A touch is one write access that changes nothing (<c>xadd</c> of 0), so that it also reads: the sum of the words read tells whether every page had
/// its content. All that the guest needs is in registers.
/// </remarks>
internal static class TouchGuest
{
    /// <summary>Counters of a vCPU's latencies, 4 bytes each.</summary>
    internal const int Counters = 1024;

    /// <summary>Latencies from one power of two to the next are told apart in so many steps.</summary>
    internal const int StepsPerOctave = 16;

    private const int BitsOfStep = 4;

    /// <summary>The multiplier of a pseudo-random order that has a full period over every power of two.</summary>
    private const ulong OrderMultiplier = 1_664_525;

    private static readonly AssemblerRegister64 s_slice = rbx;
    private static readonly AssemblerRegister64 s_pages = r12;
    private static readonly AssemblerRegister64 s_mask = r13;
    private static readonly AssemblerRegister64 s_multiplier = r14;
    private static readonly AssemblerRegister64 s_increment = r15;
    private static readonly AssemblerRegister64 s_page = rsi;
    private static readonly AssemblerRegister64 s_steps = rdi;
    private static readonly AssemblerRegister64 s_sum = r8;
    private static readonly AssemblerRegister64 s_counters = r10;

    /// <summary>Assembles the guest.</summary>
    /// <param name="address">Where it is going to run.</param>
    /// <returns>Its code.</returns>
    internal static byte[] Assemble(ulong address)
    {
        var asm = new Assembler(64);
        Label next = asm.CreateLabel();
        Label skip = asm.CreateLabel();
        asm.mov(edx, GuestPort.Report);
        asm.@out(dx, eax);

        asm.Label(ref next);
        asm.cmp(s_page, s_pages);
        asm.jae(skip);
        asm.mov(r11, s_page);
        asm.shl(r11, 12);
        asm.add(r11, s_slice);
        asm.rdtsc();
        asm.shl(rdx, 32);
        asm.or(rax, rdx);
        asm.mov(r9, rax);
        asm.xor(ecx, ecx);
        asm.xadd(__qword_ptr[r11], rcx);
        asm.add(s_sum, rcx);
        asm.rdtsc();
        asm.shl(rdx, 32);
        asm.or(rax, rdx);
        asm.sub(rax, r9);

        // The counter's number: the highest bit's and the bits behind it.
        asm.or(rax, StepsPerOctave);
        asm.bsr(rcx, rax);
        asm.sub(ecx, BitsOfStep);
        asm.shr(rax, cl);
        asm.shl(ecx, BitsOfStep);
        asm.lea(eax, __[rax + rcx - StepsPerOctave]);
        asm.inc(__dword_ptr[s_counters + (rax * sizeof(uint))]);

        asm.Label(ref skip);
        asm.imul(s_page, s_multiplier);
        asm.add(s_page, s_increment);
        asm.and(s_page, s_mask);
        asm.dec(s_steps);
        asm.jne(next);
        asm.mov(edx, GuestPort.Exit);
        asm.@out(dx, eax);
        asm.ud2();

        using var code = new MemoryStream();
        _ = asm.Assemble(new StreamCodeWriter(code), address);
        return code.ToArray();
    }

    /// <summary>The registers that a vCPU starts with.</summary>
    /// <param name="registers">Those of any guest.</param>
    /// <param name="slice">The guest physical address of what it touches.</param>
    /// <param name="pages">How many pages.</param>
    /// <param name="counters">The guest physical address of its counters.</param>
    /// <param name="order">0 for the pages' own order, or the number of a pseudo-random one.</param>
    /// <returns>The registers.</returns>
    internal static VcpuRegisters Begin(VcpuRegisters registers, ulong slice, ulong pages, ulong counters, int order)
    {
        registers.Rbx = slice;
        registers.R12 = pages;
        registers.R10 = counters;
        if (order == 0)
        {
            registers.R13 = ulong.MaxValue;
            registers.R14 = 1;
            registers.R15 = 1;
            registers.Rdi = pages;
        }
        else
        {
            ulong steps = System.Numerics.BitOperations.RoundUpToPowerOf2(pages);
            registers.R13 = steps - 1;
            registers.R14 = OrderMultiplier;
            registers.R15 = ((ulong)order * 2 * (steps / 5)) + 1;
            registers.Rdi = steps;
        }

        return registers;
    }

    /// <summary>The sum of the words that a vCPU read.</summary>
    /// <param name="registers">Its registers at its end.</param>
    internal static ulong SumOf(VcpuRegisters registers) => registers.R8;

    /// <summary>The lowest latency that a counter counts, in ticks.</summary>
    /// <param name="counter">0 to <see cref="Counters"/>; a counter ends where the next one begins.</param>
    internal static double LowestOf(int counter) =>
        (StepsPerOctave + (counter % StepsPerOctave)) * Math.Pow(2, counter / StepsPerOctave);
}
