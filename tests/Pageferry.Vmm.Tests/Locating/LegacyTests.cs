using Pageferry.Kvm;

namespace Pageferry.Vmm.Tests.Locating;

/// <summary>32-bit and 16-bit code: segments with bases, stacks of another width, real mode, task switches.</summary>
public class LegacyTests
{
    private const ulong Code = 0x40_0000;
    private const ulong Data = 0x1234_5000;
    private const ulong Stack = 0x0BFF_E000;
    private const ulong StackNext = Stack + 0x1000;
    private const ulong Gdt = 0x5000_0000;
    private const ulong Idt = Gdt + 0x1000;
    private const ulong Tss = Gdt + 0x2000;
    private const ulong OtherTss = Gdt + 0x3000;
    private const ulong KernelStack = Gdt + 0x4000;

    private const ushort KernelCode = 0x08;
    private const ushort KernelData = 0x10;
    private const ushort UserCode = 0x1B;
    private const ushort UserData = 0x23;
    private const ushort TssSelector = 0x28;
    private const ushort OtherTssSelector = 0x30;
    private const ushort GateSelector = 0x38;
    private const ushort TaskGateSelector = 0x40;

    private const FaultAccess R = FaultAccess.Read;
    private const FaultAccess W = FaultAccess.Write;
    private const FaultAccess RW = R | W;
    private const FaultAccess X = FaultAccess.Execute;

    [Fact]
    public void Every_segment_has_its_base()
    {
        SyntheticGuest guest = Guest(3, 0x8B, 0x03); // mov eax, [ebx]
        guest.Context.SystemRegisters.Ds.Base = Data;
        guest.Context.Registers.Rbx = 8;
        Check(guest, (Code, X), (Data, R));
    }

    [Fact]
    public void The_code_segment_has_one_too()
    {
        SyntheticGuest guest = Guest(3, 0x90);
        guest.Context.SystemRegisters.Cs.Base = Code - 0x1000;
        guest.Context.Registers.Rip = 0x1000;
        Check(guest, (Code, X));
    }

    [Fact]
    public void A_linear_address_wraps_at_4_GiB()
    {
        SyntheticGuest guest = Guest(3, 0x8B, 0x03); // mov eax, [ebx]
        guest.Context.SystemRegisters.Ds.Base = 0xFFFF_F000;
        guest.Context.Registers.Rbx = Data + 0x1008;
        Check(guest, (Code, X), (Data, R));
    }

    [Fact]
    public void The_upper_halves_of_registers_do_not_count()
    {
        SyntheticGuest guest = Guest(3, 0x8B, 0x03); // mov eax, [ebx]
        guest.Context.Registers.Rbx = Data | (7UL << 32);
        Check(guest, (Code, X), (Data, R));
    }

    [Theory]
    [InlineData(0x60)] // pusha
    [InlineData(0x50)] // push eax
    [InlineData(0x06)] // push es
    public void What_is_pushed_lies_below_the_stack_pointer(byte opcode) => Check(Guest(3, opcode), (Code, X), (Stack, W));

    [Fact]
    public void Popa_reads_all_of_its_slots()
    {
        SyntheticGuest guest = Guest(3, 0x61);
        guest.Context.Registers.Rsp = StackNext - 4;
        Check(guest, (Code, X), (Stack, R), (StackNext, R));
    }

    [Fact]
    public void A_stack_of_16_bits_wraps_within_its_segment()
    {
        SyntheticGuest guest = Guest(3, 0x50); // push eax
        guest.Context.SystemRegisters.Ss.Db = 0;
        guest.Context.SystemRegisters.Ss.Base = Stack - 0xF000;
        guest.Context.Registers.Rsp = 0x1_0000;

        // What the code's width would give is mapped too, and may be listed.
        Assert.Equal(W, guest.Locate()[guest.Gpa(Stack)]);
    }

    [Fact]
    public void Bound_reads_both_limits()
    {
        SyntheticGuest guest = Guest(3, 0x62, 0x03); // bound eax, [ebx]
        guest.Map(Data + 0x1000);
        guest.Context.Registers.Rbx = Data + 0xFFC;
        Check(guest, (Code, X), (Data, R), (Data + 0x1000, R));
    }

    [Fact]
    public void Les_loads_the_segment_that_it_reads() =>
        Check(Guest(3, 0xC4, 0x03).Put(Data + 4, UserData), (Code, X), (Data, R), (Gdt, R)); // les eax, [ebx]

    [Fact]
    public void An_interrupt_from_user_code_pushes_to_the_kernels_stack() =>
        Check(Guest(3, 0xCD, 0x80), (Code, X), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W));

    [Fact]
    public void An_interrupt_of_the_kernel_stays_on_its_stack() => Check(Guest(0, 0xCD, 0x80), (Code, X), (Idt, R), (Gdt, R), (Stack, W));

    [Fact]
    public void A_task_gate_switches_tasks() => Check(Guest(3, 0xCD, 0x08), (Code, X), (Idt, R), (Gdt, RW), (Tss, RW), (OtherTss, RW));

    [Theory]
    [InlineData(OtherTssSelector)]
    [InlineData(TaskGateSelector)]
    public void A_far_jump_may_switch_tasks(ushort selector) =>
        Check(Guest(0, 0xEA, 0, 0, 0, 0, (byte)selector, 0), (Code, X), (Gdt, RW), (Tss, RW), (OtherTss, RW));

    [Fact]
    public void A_return_from_a_nested_task_goes_back_to_the_other()
    {
        SyntheticGuest guest = Guest(0, 0xCF);
        guest.Context.Registers.Rflags |= 1 << 14;
        guest.Write(Tss, (ulong)OtherTssSelector);
        Dictionary<ulong, FaultAccess> found = guest.Locate();
        Assert.Equal(RW, found[guest.Gpa(OtherTss)]);
        Assert.Equal(RW, found[guest.Gpa(Tss)]);
    }

    [Fact]
    public void A_call_gate_copies_its_parameters()
    {
        SyntheticGuest guest = Guest(3, 0x9A, 0, 0, 0, 0, GateSelector | 3, 0);
        guest.Context.Registers.Rsp = StackNext - 16;

        // Four slots, and five parameters of 4 bytes.
        guest.Write(Tss + 4, (KernelStack + 32) | ((ulong)KernelData << 32));
        Check(guest, (Code, X), (Stack, RW), (StackNext, R), (Gdt, R), (Tss, R), (KernelStack, W), (OtherTss, W));
    }

    [Fact]
    public void A_return_to_user_code_pops_the_stack_too()
    {
        SyntheticGuest guest = Guest(0, 0xCF);
        guest.Context.Registers.Rsp = StackNext - 12;
        Check(guest.Put(StackNext - 12, (ulong)UserCode << 32, 2).Put(StackNext, (ulong)UserData << 32), (Code, X), (Stack, R), (StackNext, R), (Gdt, R));
    }

    [Fact]
    public void A_return_to_virtual_8086_mode_pops_all_segments()
    {
        SyntheticGuest guest = Guest(0, 0xCF);
        guest.Context.Registers.Rsp = StackNext - 32;
        guest.Write(StackNext - 24, 1UL << 17);
        Check(guest, (Code, X), (Stack, R), (StackNext, R));
    }

    [Fact]
    public void Control_registers_load_the_first_table()
    {
        SyntheticGuest guest = Guest(0, 0x0F, 0x22, 0xDB); // mov cr3, ebx
        guest.Context.Registers.Rbx = 0x77_7020;
        Dictionary<ulong, FaultAccess> expected = guest.Expect((Code, X));
        expected[0x77_7000] = R;
        Assert.Equal(expected, guest.Locate());
    }

    [Fact]
    public void Real_mode_has_no_descriptors_and_a_table_of_vectors()
    {
        // int 21h at 0x10_0000, with the vectors at 0 and the stack at 0x8_0000 + 0xFFF0.
        SyntheticGuest guest = RealMode(0xCD, 0x21);
        Assert.Equal(new() { [0x10_0000] = X, [0] = R, [0x8_F000] = W }, guest.Locate());
    }

    [Fact]
    public void Real_mode_wraps_at_64_KiB()
    {
        SyntheticGuest guest = RealMode(0xA4); // movsb
        guest.Context.Registers.Rsi = 0x1_2345;
        guest.Context.Registers.Rdi = 0xFFFF;
        Assert.Equal(new() { [0x10_0000] = X, [0x2_2000] = R, [0x4_F000] = W }, guest.Locate());
    }

    [Fact]
    public void Real_mode_loads_segments_without_looking_them_up()
    {
        Assert.Equal(new() { [0x10_0000] = X }, RealMode(0x8E, 0xD8).Locate());                    // mov ds, ax
        Assert.Equal(new() { [0x10_0000] = X, [0x8_F000] = R }, RealMode(0xCF).Locate());          // iret
        Assert.Equal(new() { [0x10_0000] = X }, RealMode(0xEA, 0, 0, 8, 0).Locate());              // jmp 8:0
    }

    private static SyntheticGuest RealMode(params ReadOnlySpan<byte> instruction)
    {
        var guest = new SyntheticGuest(Paging.None, bitness: 16, privilege: 0);
        guest.Code(0x10_0000, instruction);
        ref VcpuSystemRegisters system = ref guest.Context.SystemRegisters;
        system.Cr0 = 0;
        system.Cs.Base = 0xF_FFF0;
        guest.Context.Registers.Rip = 0x10;
        system.Ds.Base = 0x2_0000;
        system.Es.Base = 0x4_0000;
        system.Ss.Base = 0x8_0000;
        system.Idt = new VcpuDescriptorTable { Limit = 0x3FF };
        guest.Context.Registers.Rsp = 0xFFF0;
        return guest;
    }

    private static void Check(SyntheticGuest guest, params (ulong Linear, FaultAccess Access)[] touched) =>
        Assert.Equal(guest.Expect(touched), guest.Locate());

    private static SyntheticGuest Guest(int privilege, params ReadOnlySpan<byte> instruction)
    {
        var guest = new SyntheticGuest(Paging.Pae, bitness: 32, privilege);
        guest.Map(Code).Map(Data).Map(Stack, 2).Map(Gdt, 5).Code(Code, instruction);
        ref VcpuSystemRegisters system = ref guest.Context.SystemRegisters;
        system.Gdt = new VcpuDescriptorTable { Base = Gdt, Limit = 0x47 };
        system.Idt = new VcpuDescriptorTable { Base = Idt, Limit = 0x7FF };
        system.Tr = new VcpuSegment { Base = Tss, Limit = 0x67, Selector = TssSelector, Type = 11 };
        guest.Write(Gdt, 0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF);
        guest.Write(Gdt + TssSelector, TaskDescriptor(Tss));
        guest.Write(Gdt + OtherTssSelector, TaskDescriptor(OtherTss));
        guest.Write(Gdt + GateSelector, (KernelCode << 16) | (5UL << 32) | (0xECUL << 40));
        guest.Write(Gdt + TaskGateSelector, (OtherTssSelector << 16) | (0xE5UL << 40));
        for (ulong vector = 0; vector < 256; vector++)
        {
            guest.Write(Idt + (vector * 8), vector == 8 ? (OtherTssSelector << 16) | (0xE5UL << 40) : (KernelCode << 16) | (0xEEUL << 40));
        }

        guest.Write(Tss + 4, (KernelStack + 0x1000) | ((ulong)KernelData << 32));
        guest.Context.Registers.Rbx = Data;
        guest.Context.Registers.Rsp = StackNext;
        return guest;
    }

    private static ulong TaskDescriptor(ulong tss) => 0x8B00_0000_0067 | ((tss & 0xFF_FFFF) << 16) | (tss >> 24 << 56);
}
