using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Testing;

/// <summary>
/// A flat guest that puts a known value into every general and vector register, counts down in memory without touching any of them, then
/// stores them all, compares, and ends with code 0 when each is what it was.
/// </summary>
internal static class RegisterGuest
{
    private const uint Base = 0x10_0000;
    private const uint Expected = Base + 0x8000;
    private const uint Stored = Base + 0xA000;
    private const uint Counter = Base + 0xC000;
    private const int VectorBytes = 16 * 32;
    private const int RspAt = VectorBytes + (6 * 8);
    private const int AllBytes = VectorBytes + (16 * 8);

    private static readonly AssemblerRegister64[] s_general =
        [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15];

    private static readonly AssemblerRegisterYMM[] s_vectors =
        [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];

    private static readonly AssemblerRegisterXMM[] s_halves =
        [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];

    /// <summary>Assembles the guest.</summary>
    /// <param name="count">How often it counts down: some billions take seconds.</param>
    public static byte[] Assemble(ulong count)
    {
        byte[] expected = [.. Enumerable.Range(0, AllBytes).Select(i => i < VectorBytes && !Avx.IsSupported && i % 32 >= 16 ? (byte)0 : (byte)((i * 151) + 7))];

        // A stack pointer is canonical: a KVM in software emulates every instruction of a guest whose isn't.
        expected.AsSpan(RspAt + 5, 3).Clear();
        var code = new Assembler(64);
        for (uint i = 0; i < 16; i++)
        {
            if (Avx.IsSupported)
            {
                code.vmovdqu(s_vectors[i], __ymmword_ptr[Expected + (i * 32)]);
            }
            else
            {
                code.movdqu(s_halves[i], __xmmword_ptr[Expected + (i * 32)]);
            }
        }

        for (int i = 0; i < 16; i++)
        {
            code.mov(s_general[i], BitConverter.ToUInt64(expected, VectorBytes + (i * 8)));
        }

        Label again = code.CreateLabel();
        code.Label(ref again);
        code.dec(__qword_ptr[Counter]);
        code.jnz(again);
        for (uint i = 0; i < 16; i++)
        {
            code.mov(__qword_ptr[Stored + VectorBytes + (i * 8)], s_general[i]);
        }

        for (uint i = 0; i < 16; i++)
        {
            if (Avx.IsSupported)
            {
                code.vmovdqu(__ymmword_ptr[Stored + (i * 32)], s_vectors[i]);
            }
            else
            {
                code.movdqu(__xmmword_ptr[Stored + (i * 32)], s_halves[i]);
            }
        }

        Label end = code.CreateLabel();
        code.mov(rsi, (ulong)Expected);
        code.mov(rdi, (ulong)Stored);
        code.mov(ecx, AllBytes);
        code.xor(eax, eax);
        code.cld();
        code.repe.cmpsb();
        code.setne(al);
        code.Label(ref end);
        code.@out(0xF4, eax);
        code.jmp(end);

        var assembled = new MemoryStream();
        _ = code.Assemble(new StreamCodeWriter(assembled), Base);
        var image = new byte[Counter - Base + sizeof(ulong)];
        assembled.ToArray().CopyTo(image, 0);
        expected.CopyTo(image, (int)(Expected - Base));
        BitConverter.TryWriteBytes(image.AsSpan((int)(Counter - Base)), count);
        return image;
    }
}
