using Iced.Intel;
using Pageferry.Kvm;
using static Iced.Intel.AssemblerRegisters;
using static Pageferry.Vmm.Tests.Locating.ArmedGuest;

namespace Pageferry.Vmm.Tests.Locating;

/// <summary>Under KVM, with one page missing at a time: each run that ends with EFAULT is explained by the locator's list, and ends right once the page is placed.</summary>
[NeedsKvm]
public class KvmFaultTests
{
    private const ulong Next = Data + PageBytes;
    private const ulong StackNext = Stack + PageBytes;

    private static readonly Dictionary<string, Step> s_steps = new(StringComparer.Ordinal)
    {
        ["load"] = new(c => c.mov(rax, __[rbx + 8]), Data),
        ["load across pages"] = new(c => c.mov(rax, __[rbx + 0xFFC]), Data, Next),
        ["store"] = new(c => c.mov(__qword_ptr[rbx], rax), Data),
        ["store across pages"] = new(c => c.mov(__qword_ptr[rbx + 0xFFC], rax), Data, Next),
        ["lock xadd"] = new(c => c.@lock.xadd(__qword_ptr[rbx], rax), Data),
        ["lock xadd across pages"] = new(c => c.@lock.xadd(__qword_ptr[rbx + 0xFFC], rax), Data, Next),
        ["cmpxchg16b"] = new(c => c.cmpxchg16b(__xmmword_ptr[rbx]), Data),
        ["bts of a far bit"] = new(c => c.bts(__qword_ptr[rbx], rcx), Next) { Rcx = 0x1000 * 8 },
        ["push"] = new(c => c.push(rax), Stack),
        ["push of memory"] = new(c => c.push(__qword_ptr[rbx]), Data, Stack),
        ["pop to memory"] = new(c => c.pop(__qword_ptr[rbx]), Data, StackNext),
        ["call"] = new(c => c.db(0xE8, 0, 0, 0, 0), Stack),
        ["leave"] = new(c => c.leave(), Other) { Rbp = Other },
        ["enter"] = new(c => c.enter(0x40, 2), Stack, Other) { Rbp = Other + 0x800 },
        ["movs"] = new(c => c.movsq(), Data, Other),
        ["rep movs"] = new(c => c.rep.movsb(), Data, Next, Other, Other + PageBytes) { Rcx = 0x1100, Rsi = Data + 0x80, Rdi = Other + 0xF80 },
        ["rep movs of words across pages"] = new(c => c.rep.movsq(), Data, Next, Other, Other + PageBytes) { Rcx = 4, Rsi = Next - 12, Rdi = Other + 0xFFC },
        ["rep movs backwards"] = new(c => c.rep.movsd(), Data, Next, Other, Other + PageBytes) { Rcx = 0x300, Rsi = Next + 0x400, Rdi = Other + 0x1400, Flags = 0x400 },
        ["rep stos"] = new(c => c.rep.stosq(), Other, Other + PageBytes) { Rcx = 0x180, Rdi = Other + 0x800 },
        ["repe cmps"] = new(c => c.repe.cmpsb(), Data, Other) { Rcx = 8 },
        ["repne scas"] = new(c => c.repne.scasb(), Other) { Rcx = 8 },
        ["rep lods"] = new(c => c.rep.lodsb(), Data, Next) { Rcx = 0x1001 },
        ["xlat"] = new(c => c.xlatb(), Data),
        ["movups across pages"] = new(c => c.movups(xmm0, __xmmword_ptr[rbx + 0xFF8]), Data, Next),
        ["vmovdqu across pages"] = new(c => c.vmovdqu(__ymmword_ptr[rbx + 0xFF8], ymm0), Data, Next),
        ["maskmovdqu"] = new(c =>
        {
            c.pcmpeqd(xmm1, xmm1);
            c.maskmovdqu(xmm0, xmm1);
        }, Other),
        ["gather across pages"] = new(c =>
        {
            c.vpcmpeqd(ymm2, ymm2, ymm2);
            c.mov(eax, 0x400);
            c.vmovd(xmm1, eax);
            c.vgatherdps(ymm0, __dword_ptr[rbx + (ymm1 * 4)], ymm2);
        }, Data, Next),
        ["gather with a negative index"] = new(c =>
        {
            c.vpcmpeqd(xmm2, xmm2, xmm2);
            c.vpcmpeqd(xmm1, xmm1, xmm1);
            c.vpgatherqq(xmm0, __qword_ptr[rbx + (xmm1 * 8) + 0x1004], xmm2);
        }, Data, Next),
        ["fxsave across pages"] = new(c => c.fxsave64(__[rbx + 0xF00]), Data, Next),
        ["fnstenv across pages"] = new(c => c.fnstenv(__[rbx + 0xFF0]), Data, Next),
        ["xsave across pages"] = new(c => c.xsave64(__[rbx + 0xF00]), Data, Next) { Rax = 3 },
        ["xrstor across pages"] = new(c =>
        {
            c.xsave64(__[rbx + 0xF00]);
            c.xrstor64(__[rbx + 0xF00]);
        }, Stack, StackNext)
        { Rax = 3, Rbx = Stack },
        ["jump through memory"] = new(c => c.jmp(__qword_ptr[rbx + 8]), Data),
        ["return"] = new(c => c.ret(8), Other) { Rsp = Other + 0x10 },
    };

    public static TheoryData<string, bool> Steps => [.. s_steps.Keys.SelectMany(name => new[] { (name, true), (name, false) })];

    public static TheoryData<string> Names => [.. s_steps.Keys];

    [Theory]
    [MemberData(nameof(Steps))]
    public void The_page_that_is_missing_is_found(string name, bool synchronized)
    {
        using var guest = new ArmedGuest();
        Assert.SkipWhen(synchronized && !guest.Cpu.TrySynchronizeContext(), "This kernel leaves no registers in a vCPU's shared memory (KVM_CAP_SYNC_REGS).");
        Step step = s_steps[name];
        foreach (ulong entry in new[] { CodePage, CodePage + PageBytes - 1 })
        {
            byte[] code = step.Program(entry);
            HashSet<ulong> touched = [.. step.Touched, CodePage, .. entry == CodePage ? Array.Empty<ulong>() : [CodePage + PageBytes]];
            guest.Reset(code, entry, step.Registers);
            (List<ulong> none, VcpuExit end) = guest.Run();
            Assert.Empty(none);
            Assert.Equal((VcpuExitKind.PortWrite, EndPort), (end.Kind, end.Address));
            (VcpuRegisters Registers, byte[] Memory) outcome = guest.Outcome();
            foreach (ulong page in Pages)
            {
                guest.Reset(code, entry, step.Registers);
                guest.Arm(page);
                (List<ulong> found, VcpuExit exit) = guest.Run();
                Assert.Equal(touched.Contains(page) ? [page] : [], found);
                Assert.Equal(end, exit);
                Assert.Equal(outcome.Registers, guest.Outcome().Registers);
                Assert.True(outcome.Memory.AsSpan().SequenceEqual(guest.Outcome().Memory));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_guest_of_which_all_is_missing_gets_what_it_touches(string name)
    {
        using var guest = new ArmedGuest();
        Step step = s_steps[name];
        byte[] code = step.Program(CodePage);
        guest.Reset(code, CodePage, step.Registers);
        (_, VcpuExit end) = guest.Run();
        (VcpuRegisters Registers, byte[] Memory) outcome = guest.Outcome();
        guest.Reset(code, CodePage, step.Registers);
        foreach (ulong page in Pages)
        {
            guest.Arm(page);
        }

        (List<ulong> found, VcpuExit exit) = guest.Run();
        Assert.Equal(end, exit);
        Assert.Equal(step.Touched.Append(CodePage).Order(), found.Order());
        Assert.Equal(outcome.Registers, guest.Outcome().Registers);
        Assert.True(outcome.Memory.AsSpan().SequenceEqual(guest.Outcome().Memory));
    }

    /// <summary>
    /// A KVM that walks the guest's tables in the processor (EPT, NPT) faults on a table that is missing like on any page. One that walks them itself (shadow
    /// paging) takes the error of its own read for the guest's: the guest gets a page fault, and KVM_RUN no error. The locator can't help there: tables have to be
    /// present before the guest runs.
    /// </summary>
    [Fact]
    public void A_table_that_is_missing_is_found_or_is_the_guests_page_fault()
    {
        using var guest = new ArmedGuest();
        Step step = s_steps["load"];
        byte[] code = step.Program(CodePage);
        guest.Reset(code, CodePage, step.Registers);
        (_, VcpuExit end) = guest.Run();
        foreach (ulong page in TablePages)
        {
            guest.Reset(code, CodePage, step.Registers);
            guest.Arm(page);
            (List<ulong> found, VcpuExit exit) = guest.Run();
            if (found.Count > 0)
            {
                Assert.Equal([page], found);
                Assert.Equal(end, exit);
            }
            else
            {
                Assert.True(exit.Kind is VcpuExitKind.Halt or VcpuExitKind.Shutdown, $"0x{page:x}: {exit}");
            }
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Locating_allocates_nothing(bool synchronized)
    {
        using var guest = new ArmedGuest();
        if (synchronized)
        {
            _ = guest.Cpu.TrySynchronizeContext();
        }

        // A gather's vector registers are read, too.
        Step step = s_steps["gather across pages"];
        guest.Reset(step.Program(CodePage), CodePage, step.Registers);
        guest.Arm(Data);
        Assert.Equal(VcpuExitKind.Fault, guest.Cpu.Run().Kind);
        var candidates = new FaultCandidate[FaultLocator.MostCandidates];
        Assert.Equal(0, Allocations.Of(() => guest.Locator.Locate(guest.Cpu, candidates)));
    }

    /// <summary>A step of a guest, the registers that it finds, and the pages that it can't do without.</summary>
    private sealed record Step(Action<Assembler> Assemble, params ulong[] Touched)
    {
        public ulong Rax { get; init; }

        public ulong Rbx { get; init; } = Data;

        public ulong Rcx { get; init; }

        public ulong Rsi { get; init; } = Data;

        public ulong Rdi { get; init; } = Other;

        public ulong Rbp { get; init; }

        public ulong Rsp { get; init; } = StackNext;

        public ulong Flags { get; init; }

        public VcpuRegisters Registers => new() { Rax = Rax, Rbx = Rbx, Rcx = Rcx, Rsi = Rsi, Rdi = Rdi, Rbp = Rbp, Rsp = Rsp, Rflags = Flags };

        public byte[] Program(ulong entry)
        {
            var assembler = new Assembler(64);
            Assemble(assembler);
            assembler.db([.. End]);
            var bytes = new MemoryStream();
            _ = assembler.Assemble(new StreamCodeWriter(bytes), entry);
            return bytes.ToArray();
        }
    }
}
