using Iced.Intel;
using Pageferry.Kvm;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Vmm.Tests.Locating;

/// <summary>What each kind of instruction touches in 64-bit code: all of it, and nothing else.</summary>
public class InstructionTests
{
    private const ulong Code = 0x40_0000;
    private const ulong Data = 0x1234_5000;
    private const ulong Next = Data + SyntheticGuest.PageBytes;
    private const ulong Other = 0x5_4321_0000;
    private const ulong Stack = 0x7FFF_F7FF_E000;
    private const ulong StackNext = Stack + SyntheticGuest.PageBytes;
    private const ulong Thread = 0x66_0000_0000;

    private const FaultAccess R = FaultAccess.Read;
    private const FaultAccess W = FaultAccess.Write;
    private const FaultAccess RW = R | W;

    private static readonly Dictionary<string, Instruction> s_cases = new(StringComparer.Ordinal)
    {
        ["load"] = new(c => c.mov(rax, __[rbx + 8]), (Data, R)),
        ["store"] = new(c => c.mov(__byte_ptr[rbx], 1), (Data, W)),
        ["load across pages"] = new(c => c.mov(rax, __[rbx + 0xFFC]), (Data, R), (Next, R)),
        ["load up to a page's end"] = new(c => c.mov(rax, __[rbx + 0xFF8]), (Data, R)),
        ["add to memory"] = new(c => c.add(__dword_ptr[rbx], eax), (Data, RW)),
        ["base, index and scale"] = new(c => c.mov(rax, __[rbx + (rcx * 8)]), (Next, R)) { Rcx = 0x200 },
        ["negative index"] = new(c => c.mov(rax, __[r9 + (rcx * 8)]), (Data, R)) { Rcx = unchecked((ulong)-1) },
        ["relative to RIP"] = new(c => c.mov(rax, __[Code + 0x1800]), (Code + 0x1000, R)),
        ["segment base of FS"] = new(c => c.mov(rax, __qword_ptr.fs[0x10]), (Thread, R)),
        ["no segment base of ES in 64-bit code"] = new(c => c.mov(rax, __qword_ptr.es[rbx]), (Data, R)),
        ["32-bit address wraps"] = new(c => c.mov(rax, __[ebx + ecx]), (Data, R)) { Rbx = Data + 0x10, Rcx = 0xFFFF_FFF0 },
        ["address beyond the canonical ones"] = new(c => c.mov(rax, __[rbx])) { Rbx = 1UL << 52 },
        ["lea"] = new(c => c.lea(rax, __[rbx])),
        ["nop with an operand"] = new(c => c.nop(__dword_ptr[rbx])),
        ["prefetch"] = new(c => c.prefetcht0(__byte_ptr[rbx])),
        ["register only"] = new(c => c.add(rax, rbx)),
        ["syscall"] = new(c => c.syscall()),
        ["sysret"] = new(c => c.sysretq()),

        ["push"] = new(c => c.push(rax), (Stack, W)),
        ["pop"] = new(c => c.pop(rax), (StackNext, R)),
        ["push across pages"] = new(c => c.push(rax), (Stack, W), (StackNext, W)) { Rsp = StackNext + 4 },
        ["push of memory"] = new(c => c.push(__qword_ptr[rbx]), (Data, R), (Stack, W)),
        ["pop to memory"] = new(c => c.pop(__qword_ptr[rbx]), (Data, W), (StackNext, R)),
        ["pop to the stack counts from behind"] = new(c => c.pop(__qword_ptr[rsp - 8]), (StackNext, RW)),
        ["pushf"] = new(c => c.pushfq(), (Stack, W)),
        ["call"] = new(c => c.call(Code + 0x100), (Stack, W)),
        ["call through memory"] = new(c => c.call(__qword_ptr[rbx]), (Data, R), (Stack, W)),
        ["jump through memory"] = new(c => c.jmp(__qword_ptr[rbx]), (Data, R)),
        ["ret"] = new(c => c.ret(), (StackNext, R)),
        ["ret that drops"] = new(c => c.ret(16), (StackNext, R)),
        ["leave"] = new(c => c.leave(), (Other, R)) { Rbp = Other },
        ["enter"] = new(c => c.enter(0, 0), (Stack, W)),
        ["enter tries the new stack pointer"] = new(c => c.enter(0xF00, 0), (Stack, W), (StackNext, W)) { Rsp = StackNext + 0x800 },
        ["enter with nesting"] = new(c => c.enter(0, 3), (Stack, W), (Other, R)) { Rbp = Other + 0x800 },

        ["movs"] = new(c => c.movsq(), (Data, R), (Other, W)),
        ["rep movs: the next element"] = new(c => c.rep.movsb(), (Data, R), (Other, W)) { Rcx = 1 << 20 },
        ["rep movs across pages"] = new(c => c.rep.movsq(), (Data, R), (Next, R), (Other, W), (Other + 0x1000, W)) { Rcx = 9, Rsi = Next - 4, Rdi = Other + 0xFFF },
        ["rep movs backwards"] = new(c => c.rep.movsq(), (Next, R), (Other, W)) { Rcx = 9, Rsi = Next, Flags = 0x400 },
        ["rep movs that is done"] = new(c => c.rep.movsq()) { Rcx = 0 },
        ["rep movs with 32-bit addresses"] = new(c => c.db(0x67, 0xF3, 0xA4), (Data, R), (Next, W)) { Rcx = (1UL << 32) | 1, Rsi = (1UL << 40) | Data, Rdi = Next },
        ["rep movs with 32-bit addresses that is done"] = new(c => c.db(0x67, 0xF3, 0xA4)) { Rcx = 1UL << 32 },
        ["stos"] = new(c => c.stosd(), (Other, W)),
        ["rep stos"] = new(c => c.rep.stosq(), (Other, W)) { Rcx = 5 },
        ["lods"] = new(c => c.lodsq(), (Data, R)),
        ["repe cmps"] = new(c => c.repe.cmpsb(), (Data, R), (Other, R)) { Rcx = 5 },
        ["repne scas"] = new(c => c.repne.scasb(), (Other, R)) { Rcx = 5 },
        ["xlat"] = new(c => c.xlatb(), (Data, R)) { Rax = 0xFFFF_FF05 },

        ["lock xadd"] = new(c => c.@lock.xadd(__qword_ptr[rbx], rax), (Data, RW)),
        ["cmpxchg"] = new(c => c.cmpxchg(__qword_ptr[rbx], rcx), (Data, RW)),
        ["cmpxchg16b"] = new(c => c.cmpxchg16b(__xmmword_ptr[rbx]), (Data, RW)),
        ["xchg"] = new(c => c.xchg(__qword_ptr[rbx], rax), (Data, RW)),
        ["bt counts from the operand"] = new(c => c.bt(__dword_ptr[rbx], ecx), (Next, R)) { Rcx = 0x1000 * 8 },
        ["bts with a negative bit"] = new(c => c.bts(__qword_ptr[r9], rcx), (Data, RW)) { Rcx = unchecked((ulong)-1) },
        ["bt with a number"] = new(c => c.bt(__dword_ptr[rbx], 255), (Data, R)),

        ["movups across pages"] = new(c => c.movups(xmm0, __xmmword_ptr[rbx + 0xFF8]), (Data, R), (Next, R)),
        ["vmovdqu"] = new(c => c.vmovdqu(__ymmword_ptr[rbx + 0xFE0], ymm0), (Data, W)),
        ["vmovdqu across pages"] = new(c => c.vmovdqu(__ymmword_ptr[rbx + 0xFE1], ymm0), (Data, W), (Next, W)),
        ["maskmovdqu"] = new(c => c.maskmovdqu(xmm0, xmm1), (Other, W)),
        ["fld of 80 bits across pages"] = new(c => c.fld(__tword_ptr[rbx + 0xFF8]), (Data, R), (Next, R)),
        ["fxsave"] = new(c => c.fxsave64(__[rbx + 0xE00]), (Data, W)),
        ["fxsave across pages"] = new(c => c.fxsave64(__[rbx + 0xE10]), (Data, W), (Next, W)),
        ["xsave without AVX"] = new(c => c.xsave64(__[rbx + 0xDC0]), (Data, RW)) { Rax = 3 },
        ["xsave with AVX"] = new(c => c.xsave64(__[rbx + 0xDC0]), (Data, RW), (Next, RW)) { Rax = 7 },
        ["xsave of what the guest may not use"] = new(c => c.xsave64(__[rbx + 0xDC0]), (Data, RW)) { Rax = ~0UL, Xcr0 = 3 },
        ["xrstor"] = new(c => c.xrstor64(__[rbx + 0xDC0]), (Data, R), (Next, R)) { Rax = 7 },
        ["clzero"] = new(c => c.db(0x0F, 0x01, 0xFC), (Data, W)) { Rax = Data + 0xFFF },
        ["monitor"] = new(c => c.db(0x0F, 0x01, 0xC8), (Data, R)) { Rax = Data },
        ["movdir64b"] = new(c => c.movdir64b(rdi, __zmmword_ptr[rbx]), (Data, R), (Other, W)),

        ["gather with negative indices"] = new(c => c.vgatherdps(ymm0, __dword_ptr[r9 + (ymm1 * 4)], ymm2), (Data, R), (Next, R))
        {
            Vectors = [(1, [-4, 4, 8, 12, -1024, 16, 20, 24]), (2, [-1, -1, -1, -1, -1, -1, -1, -1])],
        },
        ["gather of what the mask has left"] = new(c => c.vgatherdps(xmm0, __dword_ptr[rbx + (xmm1 * 4)], xmm2), (Next, R))
        {
            Vectors = [(1, [0, 0, 0, 0x400]), (2, [0, 0x7FFF_FFFF, 0, int.MinValue])],
        },
        ["gather that is done"] = new(c => c.vgatherdps(xmm0, __dword_ptr[rbx + (xmm1 * 4)], xmm2)),
        ["gather of qwords by dwords takes half of the indices"] = new(c => c.vpgatherdq(xmm0, __qword_ptr[rbx + (xmm1 * 8)], xmm2), (Data, R), (Next, R))
        {
            Vectors = [(1, [0, 0x200, 1 << 20, 1 << 20]), (2, [-1, -1, -1, -1])],
        },
        ["element of a gather across pages"] = new(c => c.vpgatherqq(xmm0, __qword_ptr[rbx + (xmm1 * 1)], xmm2), (Data, R), (Next, R))
        {
            Vectors = [(1, [0xFFC, 0, 0, 0]), (2, [0, int.MinValue, 0, 0])],
        },
        ["gather with a mask register"] = new(c => c.vpgatherdd(zmm0.k1, __dword_ptr[rbx + (zmm1 * 4)]), (Next, R))
        {
            Vectors = [(1, [1, 2, 0x400, 4])],
            Mask = 4,
        },
        ["scatter"] = new(c => c.vpscatterdd(__dword_ptr[rbx + (xmm1 * 4)].k1, xmm0), (Data, W), (Next, W))
        {
            Vectors = [(1, [1, 2, 0x400, 1 << 28])],
            Mask = 7,
        },
    };

    public static TheoryData<string> Cases => [.. s_cases.Keys];

    [Theory]
    [MemberData(nameof(Cases))]
    public void An_instruction_touches_its_operands(string name)
    {
        Instruction instruction = s_cases[name];
        SyntheticGuest guest = Guest(instruction, Code);
        Assert.Equal(guest.Expect([(Code, FaultAccess.Execute), .. instruction.Touched]), guest.Locate());
    }

    /// <summary>Whichever page of an instruction is missing, it is listed: the walk and the decoder stop only behind it.</summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public void A_missing_page_is_listed(string name)
    {
        Instruction instruction = s_cases[name];
        foreach (ulong missing in Guest(instruction, Code).Locate().Keys)
        {
            SyntheticGuest guest = Guest(instruction, Code);
            guest.Missing.Add(missing);
            Assert.Contains(missing, guest.Locate().Keys);
        }
    }

    [Fact]
    public void The_bytes_of_an_instruction_across_pages_are_on_both()
    {
        var instruction = new Instruction(c => c.mov(rax, __[rbx + 0x100]), (Data, R));
        SyntheticGuest guest = Guest(instruction, Code + 0xFFE);
        Assert.Equal(guest.Expect((Code, FaultAccess.Execute), (Code + 0x1000, FaultAccess.Execute), (Data, R)), guest.Locate());
    }

    [Fact]
    public void An_instruction_that_ends_with_its_page_does_not_touch_the_next()
    {
        var instruction = new Instruction(c => c.mov(rax, __[rbx]), (Data, R));
        SyntheticGuest guest = Guest(instruction, Code + 0xFFD);
        Assert.Equal(guest.Expect((Code, FaultAccess.Execute), (Data, R)), guest.Locate());
    }

    [Fact]
    public void Code_that_is_missing_is_all_that_is_known()
    {
        var instruction = new Instruction(c => c.mov(rax, __[rbx]), (Data, R));
        SyntheticGuest guest = Guest(instruction, Code);
        guest.Missing.Add(guest.Gpa(Code));
        Assert.Equal(guest.Expect((Code, FaultAccess.Execute)), guest.Locate());
    }

    [Fact]
    public void A_second_page_of_code_that_is_missing_is_listed_with_the_first()
    {
        var instruction = new Instruction(c => c.mov(rax, __[rbx]), (Data, R));
        SyntheticGuest guest = Guest(instruction, Code + 0xFFE);
        guest.Missing.Add(guest.Gpa(Code + 0x1000));
        Assert.Equal(guest.Expect((Code, FaultAccess.Execute), (Code + 0x1000, FaultAccess.Execute)), guest.Locate());
    }

    [Fact]
    public void No_instruction_touches_itself_only()
    {
        var instruction = new Instruction(c => c.db(0x06));
        SyntheticGuest guest = Guest(instruction, Code);
        Assert.Equal(guest.Expect((Code, FaultAccess.Execute)), guest.Locate());
    }

    [Fact]
    public void What_does_not_fit_is_left_out_from_the_end()
    {
        SyntheticGuest guest = Guest(s_cases["rep movs across pages"], Code);
        var locator = new FaultLocator(guest.Read);
        var all = new FaultCandidate[FaultLocator.MostCandidates];
        int count = locator.Locate(in guest.Context, guest.Xcr0, guest.Xsave, all);
        for (int room = 0; room < count; room++)
        {
            var some = new FaultCandidate[room];
            Assert.Equal(room, locator.Locate(in guest.Context, guest.Xcr0, guest.Xsave, some));
            Assert.Equal(all[..room].Select(candidate => candidate.Gpa), some.Select(candidate => candidate.Gpa));
        }
    }

    [Fact]
    public void Nothing_is_allocated()
    {
        SyntheticGuest[] guests = [.. s_cases.Values.Select(instruction => Guest(instruction, Code))];
        FaultLocator[] locators = [.. guests.Select(guest => new FaultLocator(guest.Read))];
        var found = new FaultCandidate[FaultLocator.MostCandidates];
        Assert.Equal(0, Allocations.Of(() =>
        {
            for (int i = 0; i < guests.Length; i++)
            {
                _ = locators[i].Locate(in guests[i].Context, guests[i].Xcr0, guests[i].Xsave, found);
            }
        }));
    }

    private static SyntheticGuest Guest(Instruction instruction, ulong at)
    {
        var guest = new SyntheticGuest(Paging.FourLevels, bitness: 64, privilege: 3) { Xcr0 = instruction.Xcr0 };
        guest.Map(Code, 2).Map(Data, 2).Map(Other, 2).Map(Stack, 2).Map(Thread).Code(at, instruction.Assemble);
        ref VcpuRegisters registers = ref guest.Context.Registers;
        registers.Rax = instruction.Rax;
        registers.Rbx = instruction.Rbx;
        registers.Rcx = instruction.Rcx;
        registers.Rsi = instruction.Rsi;
        registers.Rdi = instruction.Rdi;
        registers.Rbp = instruction.Rbp;
        registers.Rsp = instruction.Rsp;
        registers.R9 = Next;
        registers.Rflags |= instruction.Flags;
        guest.Context.SystemRegisters.Fs.Base = Thread;
        guest.Context.SystemRegisters.Es.Base = 1 << 20;
        foreach ((int number, int[] elements) in instruction.Vectors)
        {
            for (int i = 0; i < elements.Length; i++)
            {
                int offset = i < 4 ? 160 + (number * 16) + (i * 4) : XsaveLayout.Offset(XsaveLayout.Avx) + (number * 16) + ((i - 4) * 4);
                BitConverter.TryWriteBytes(guest.Xsave.AsSpan(offset), elements[i]);
            }
        }

        BitConverter.TryWriteBytes(guest.Xsave.AsSpan(XsaveLayout.Offset(XsaveLayout.Masks) + sizeof(ulong)), instruction.Mask);
        return guest;
    }

    /// <summary>An instruction, the registers that it finds, and what it touches beside its own page.</summary>
    private sealed record Instruction(Action<Assembler> Assemble, params (ulong Linear, FaultAccess Access)[] Touched)
    {
        public ulong Rax { get; init; }

        public ulong Rbx { get; init; } = Data;

        public ulong Rcx { get; init; }

        public ulong Rsi { get; init; } = Data;

        public ulong Rdi { get; init; } = Other;

        public ulong Rbp { get; init; }

        public ulong Rsp { get; init; } = StackNext;

        public ulong Flags { get; init; }

        public ulong Xcr0 { get; init; } = 7;

        public ulong Mask { get; init; }

        public (int Number, int[] Elements)[] Vectors { get; init; } = [];
    }
}
