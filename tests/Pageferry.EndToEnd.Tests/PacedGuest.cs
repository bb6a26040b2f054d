using System.Globalization;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.EndToEnd.Tests;

/// <summary>
/// A flat guest that writes all its memory, says so, and then writes page after page at a rate, over and over. It checks that each page has what it wrote there last, and ends with code 1 when one has not.
/// </summary>
internal static class PacedGuest
{
    /// <summary>Where its pages begin; it has all memory from there on.</summary>
    internal const uint Pages = 8 << 20;

    private const uint Base = 0x10_0000;
    private const int InfoMemorySize = 16;
    private const int PageSize = 4096;

    /// <summary>Assembles the guest.</summary>
    /// <param name="bytesPerSecond">How fast it makes memory dirty; 0 for as fast as it can.</param>
    public static byte[] Assemble(long bytesPerSecond)
    {
        var code = new Assembler(64);
        Label fill = code.CreateLabel();
        Label pass = code.CreateLabel();
        Label page = code.CreateLabel();
        Label wait = code.CreateLabel();
        Label wrong = code.CreateLabel();

        // r15: the end of memory. r12: what the pages hold, the number of the pass. r11: when the next page is due.
        code.mov(r15, __qword_ptr[rdi + InfoMemorySize]);
        code.mov(ebx, Pages);
        code.mov(r12d, 1);
        code.Label(ref fill);
        code.mov(__qword_ptr[rbx], r12);
        code.add(rbx, PageSize);
        code.cmp(rbx, r15);
        code.jb(fill);
        foreach (char character in "filled\n")
        {
            code.mov(al, (sbyte)character);
            code.@out(0xE9, al);
        }

        ReadClock(code);
        code.mov(r11, rax);
        code.Label(ref pass);
        code.mov(ebx, Pages);
        code.Label(ref page);
        code.cmp(__qword_ptr[rbx], r12);
        code.jne(wrong);
        code.inc(__qword_ptr[rbx]);
        code.mov(rcx, bytesPerSecond == 0 ? 0 : (ulong)(CyclesPerSecond() * PageSize / bytesPerSecond));
        code.add(r11, rcx);
        code.Label(ref wait);
        code.pause();
        ReadClock(code);
        code.cmp(rax, r11);
        code.jb(wait);
        code.add(rbx, PageSize);
        code.cmp(rbx, r15);
        code.jb(page);
        code.inc(r12);
        code.jmp(pass);
        code.Label(ref wrong);
        code.mov(eax, 1);
        code.@out(0xF4, eax);
        using var bytes = new MemoryStream();
        _ = code.Assemble(new StreamCodeWriter(bytes), Base);
        return bytes.ToArray();
    }

    private static void ReadClock(Assembler code)
    {
        code.rdtsc();
        code.shl(rdx, 32);
        code.or(rax, rdx);
    }

    /// <summary>As the kernel says; the time stamp counter's own rate is within a few percent.</summary>
    private static double CyclesPerSecond() => double.Parse(
        File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("cpu MHz", StringComparison.Ordinal)).Split(':')[1], CultureInfo.InvariantCulture) * 1e6;
}
