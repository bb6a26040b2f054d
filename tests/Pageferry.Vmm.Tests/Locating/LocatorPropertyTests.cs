using CsCheck;
using Pageferry.Kvm;

namespace Pageferry.Vmm.Tests.Locating;

/// <summary>Whatever a guest has in its registers, tables and code, the locator answers, and within its bounds.</summary>
public class LocatorPropertyTests
{
    private const int MemoryPages = 16;
    private const int PageBytes = 4096;
    private const int PageWalkRoom = 8;

    /// <summary>Little enough that random tables lead to each other, and now and then to themselves.</summary>
    private static readonly Gen<ulong> s_address = Gen.OneOf(
        Gen.ULong[0, (MemoryPages + 2) * PageBytes],
        Gen.ULong,
        Gen.ULong[ulong.MaxValue - PageBytes, ulong.MaxValue],
        Gen.ULong[uint.MaxValue - PageBytes, uint.MaxValue + (ulong)PageBytes]);

    private static readonly byte[][] s_memories = [.. Enumerable.Range(0, 64).Select(RandomMemory)];

    private static readonly Gen<byte[]> s_instruction = Gen.OneOf(
        Gen.Byte.Array[15],

        // Prefixes and two-byte, VEX and EVEX opcodes, which random bytes seldom make.
        Gen.Select(OneOf([0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x64, 0x48, 0x0F]), OneOf([0x0F, 0x48, 0xFF, 0xCF, 0xCB, 0xC8, 0xA4, 0x6C]), Gen.Byte.Array[13], (a, b, rest) => (byte[])[a, b, .. rest]),
        Gen.Select(OneOf([0x90, 0x91, 0x92, 0x93, 0xA0, 0xA1, 0xA2, 0xA3]), Gen.Byte.Array[9], (opcode, rest) => (byte[])[0x62, 0xF2, 0x7D, 0x49, opcode, 0x04, .. rest]),
        Gen.Select(OneOf([0x90, 0x91, 0x92, 0x93]), Gen.Byte.Array[10], (opcode, rest) => (byte[])[0xC4, 0xE2, 0x6D, opcode, 0x04, .. rest]));

    [Fact]
    public void No_instruction_makes_it_throw_loop_or_write_beyond_its_buffer() => Gen.Select(Gen.Int[0, 63], s_instruction, s_address.Array[24], Gen.Byte.Array[16]).Sample(
        (seed, instruction, addresses, choices) =>
        {
            byte[] memory = [.. s_memories[seed]];
            VcpuContext context = RandomContext(addresses, choices);
            PutAtRip(memory, context, instruction);
            var locator = new FaultLocator((gpa, destination) => Read(memory, choices[0], gpa, destination));
            var xsave = new byte[4096];
            new Random(seed).NextBytes(xsave);
            var candidates = new FaultCandidate[FaultLocator.MostCandidates + 1];
            int count = locator.Locate(in context, ulong.MaxValue, xsave, candidates);
            Assert.InRange(count, 0, FaultLocator.MostCandidates);
            FaultCandidate[] found = candidates[..count];
            Assert.True(Array.TrueForAll(found, candidate => candidate.Gpa % PageBytes == 0 && candidate.Access != FaultAccess.None));
            Assert.Equal(count, found.Select(candidate => candidate.Gpa).Distinct().Count());
            Assert.True(Array.TrueForAll(candidates[count..], candidate => candidate == default));

            // What does not fit is cut off, and nothing else changes.
            var few = new FaultCandidate[count / 2];
            Assert.Equal(few.Length, locator.Locate(in context, ulong.MaxValue, xsave, few));
            Assert.Equal(found[..few.Length].Select(candidate => candidate.Gpa), few.Select(candidate => candidate.Gpa));
        },
        iter: 20_000);

    private static Gen<byte> OneOf(byte[] values) => Gen.Int[0, values.Length - 1].Select(i => values[i]);

    /// <summary>Eight-byte words that look like table entries and descriptors, mostly of pages in memory.</summary>
    private static byte[] RandomMemory(int seed)
    {
        var random = new Random(seed);
        var memory = new byte[MemoryPages * PageBytes];
        random.NextBytes(memory);
        for (int at = 0; at < memory.Length; at += sizeof(ulong))
        {
            if (random.Next(8) > 0)
            {
                ulong page = (ulong)random.Next(MemoryPages) * PageBytes;
                BitConverter.TryWriteBytes(memory.AsSpan(at), page | (uint)random.Next(256) | (random.Next(16) > 0 ? 1UL : 0UL));
            }
        }

        return memory;
    }

    private static VcpuContext RandomContext(ulong[] addresses, byte[] choices)
    {
        var context = new VcpuContext
        {
            Registers = new VcpuRegisters
            {
                Rax = addresses[0],
                Rbx = addresses[1],
                Rcx = addresses[2],
                Rdx = addresses[3],
                Rsi = addresses[4],
                Rdi = addresses[5],
                Rsp = addresses[6],
                Rbp = addresses[7],
                R8 = addresses[8],
                R9 = addresses[9],
                R10 = addresses[10],
                R15 = addresses[11],
                Rip = addresses[12],
                Rflags = addresses[13],
            },
        };
        ref VcpuSystemRegisters system = ref context.SystemRegisters;
        system.Cr0 = (choices[1] & 1u) | ((choices[1] & 2u) != 0 ? 0x8000_0000 : 0);
        system.Cr3 = addresses[14];
        system.Cr4 = ((uint)choices[2] << 4 & 0x30u) | ((uint)choices[2] << 5 & 0x1000u);
        system.Efer = (ulong)(choices[3] & 1) << 10;
        system.Cs = new VcpuSegment { Base = addresses[15], L = (byte)(choices[4] & 1), Db = (byte)(choices[4] >> 1 & 1) };
        system.Ss = new VcpuSegment { Base = addresses[16], Dpl = choices[5], Db = (byte)(choices[5] >> 2 & 1) };
        system.Ds = new VcpuSegment { Base = addresses[17] };
        system.Fs = new VcpuSegment { Base = addresses[18] };
        system.Tr = new VcpuSegment { Base = addresses[19], Type = choices[6], Selector = choices[7], Limit = uint.MaxValue };
        system.Ldt = new VcpuSegment { Base = addresses[20], Limit = uint.MaxValue, Unusable = (byte)(choices[8] & 1) };
        system.Gdt = new VcpuDescriptorTable { Base = addresses[21], Limit = ushort.MaxValue };
        system.Idt = new VcpuDescriptorTable { Base = addresses[22], Limit = ushort.MaxValue };
        context.Events = new VcpuEvents
        {
            ExceptionInjected = (byte)(choices[9] & 1),
            ExceptionVector = choices[10],
            ExceptionHasErrorCode = (byte)(choices[9] >> 1 & 1),
            InterruptInjected = (byte)(choices[11] & 1),
            InterruptVector = choices[12],
            NmiPending = (byte)(choices[13] & 1),
        };
        return context;
    }

    /// <summary>Without this hardly ever an instruction would be decoded: RIP rarely leads anywhere through random tables.</summary>
    private static void PutAtRip(byte[] memory, in VcpuContext context, byte[] instruction)
    {
        var room = new FaultCandidate[PageWalkRoom];
        var candidates = new FaultCandidates(room);
        ulong mask = ProcessorMode.Of(context).Bitness switch { 64 => ulong.MaxValue, 32 => uint.MaxValue, _ => ushort.MaxValue };
        ulong origin = ProcessorMode.Of(context).Bitness == 64 ? 0 : context.SystemRegisters.Cs.Base;
        ulong linear = (origin + (context.Registers.Rip & mask)) & (ProcessorMode.Of(context).Bitness == 64 ? ulong.MaxValue : uint.MaxValue);
        if (PageWalker.TryWalk((gpa, to) => Read(memory, 0, gpa, to), context.SystemRegisters, linear, FaultAccess.Execute, ref candidates, out ulong gpa)
            && gpa < (ulong)memory.Length)
        {
            instruction.AsSpan(0, Math.Min(instruction.Length, memory.Length - (int)gpa)).CopyTo(memory.AsSpan((int)gpa));
        }
    }

    /// <summary>One page in some is missing.</summary>
    private static bool Read(byte[] memory, byte missing, ulong gpa, Span<byte> destination)
    {
        if ((gpa % PageBytes) + (ulong)destination.Length > PageBytes)
        {
            Assert.Fail("A read crosses a page.");
        }

        if (gpa > (ulong)memory.Length - (ulong)destination.Length || (missing != 0 && gpa / PageBytes % 32 == missing % 32UL))
        {
            return false;
        }

        memory.AsSpan((int)gpa, destination.Length).CopyTo(destination);
        return true;
    }
}
