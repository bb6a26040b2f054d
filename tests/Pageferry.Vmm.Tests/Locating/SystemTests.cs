using Iced.Intel;
using Pageferry.Kvm;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Vmm.Tests.Locating;

/// <summary>What goes through descriptor tables, TSS and IDT in 64-bit code: events, far transfers, segment loads.</summary>
public class SystemTests
{
    private const ulong Code = 0x40_0000;
    private const ulong Data = 0x1234_5000;
    private const ulong Stack = 0x7FFF_F7FF_E000;
    private const ulong StackNext = Stack + SyntheticGuest.PageBytes;
    private const ulong Kernel = 0xFFFF_8000_0000_0000;
    private const ulong Gdt = Kernel;
    private const ulong Idt = Kernel + 0x1000;
    private const ulong Tss = Kernel + 0x3000;
    private const ulong TssNext = Kernel + 0x4000;
    private const ulong Ldt = Kernel + 0x5000;
    private const ulong KernelStack = Kernel + 0x6000;
    private const ulong InterruptStack = Kernel + 0x7000;

    private const ushort KernelCode = 0x08;
    private const ushort UserCode = 0x1B;
    private const ushort UserData = 0x23;
    private const ushort TssSelector = 0x28;
    private const ushort LdtSelector = 0x38;
    private const ushort GateSelector = 0x48;
    private const ushort LocalData = 0x0F;
    private const ushort FreshData = 0x58;

    private const FaultAccess R = FaultAccess.Read;
    private const FaultAccess W = FaultAccess.Write;
    private const FaultAccess RW = R | W;
    private const FaultAccess X = FaultAccess.Execute;

    [Theory]
    [InlineData(0x80, Idt)]
    [InlineData(0xFF, Idt)]
    public void A_software_interrupt_goes_to_the_kernels_stack(byte vector, ulong idt) =>
        Check(Guest(3, c => c.@int(vector)), (Code, X), (idt, R), (Gdt, R), (Tss, R), (KernelStack, W));

    [Fact]
    public void A_breakpoint_is_one_too() => Check(Guest(3, c => c.int3()), (Code, X), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W));

    [Fact]
    public void A_gate_with_a_stack_of_its_own_uses_it()
    {
        SyntheticGuest guest = Guest(0, c => c.int1());
        Check(guest, (Code, X), (Idt, R), (Gdt, R), (TssNext, R), (InterruptStack, W));
    }

    [Fact]
    public void The_kernel_interrupts_itself_on_its_own_stack() => Check(Guest(0, c => c.@int(0x80)), (Code, X), (Idt, R), (Gdt, R), (Stack, W));

    [Fact]
    public void A_vector_beyond_the_table_touches_nothing()
    {
        SyntheticGuest guest = Guest(3, c => c.@int(0x80));
        guest.Context.SystemRegisters.Idt.Limit = (0x80 * 16) - 1;
        Check(guest, (Code, X));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void An_exception_that_waits_is_delivered_before_the_instruction(bool injected)
    {
        SyntheticGuest guest = Guest(3, c => c.mov(rax, __[rbx]));
        guest.Context.Events = new VcpuEvents { ExceptionInjected = (byte)(injected ? 1 : 0), ExceptionPending = (byte)(injected ? 0 : 1), ExceptionVector = 14, ExceptionHasErrorCode = 1 };
        Check(guest, (Code, X), (Data, R), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W));
    }

    [Fact]
    public void An_error_code_takes_a_place_on_the_stack()
    {
        SyntheticGuest guest = Guest(3, c => c.nop());
        guest.Write(guest.Context.SystemRegisters.Tr.Base + 4, KernelStack + 40);
        guest.Context.Events = new VcpuEvents { ExceptionInjected = 1, ExceptionVector = 14 };

        // The stack is aligned to 16 first.
        Check(guest, (Code, X), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W), (Ldt, W));
        guest.Write(guest.Context.SystemRegisters.Tr.Base + 4, KernelStack + 48);
        Check(guest, (Code, X), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W));
        guest.Write(guest.Context.SystemRegisters.Tr.Base + 4, KernelStack + 40);
        guest.Context.Events.ExceptionHasErrorCode = 1;
        Check(guest, (Code, X), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W), (Ldt, W));
    }

    [Fact]
    public void Interrupts_that_wait_are_delivered_too()
    {
        SyntheticGuest guest = Guest(3, c => c.nop());
        guest.Context.Events = new VcpuEvents { InterruptInjected = 1, InterruptVector = 0x80 };
        Check(guest, (Code, X), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W));
        guest.Context.Events = new VcpuEvents { NmiPending = 1 };
        Check(guest, (Code, X), (Idt, R), (Gdt, R), (Tss, R), (KernelStack, W));
    }

    [Fact]
    public void A_return_from_an_interrupt_looks_up_both_segments() =>
        Check(Guest(0, c => c.iretq()).Put(StackNext, 0, UserCode, 2, 0, UserData), (Code, X), (StackNext, R), (Gdt, R));

    [Fact]
    public void A_return_from_an_interrupt_pops_the_stack_pointer_across_pages()
    {
        SyntheticGuest guest = Guest(0, c => c.iretq());
        guest.Context.Registers.Rsp = StackNext - 24;
        Check(guest.Put(StackNext - 24, 0, UserCode, 2, 0, UserData), (Code, X), (Stack, R), (StackNext, R), (Gdt, R));
    }

    [Fact]
    public void A_far_return_to_the_same_privilege_pops_two()
    {
        SyntheticGuest guest = Guest(0, c => c.db(0x48, 0xCB));
        guest.Context.Registers.Rsp = StackNext - 16;
        Check(guest.Put(StackNext - 16, 0, KernelCode), (Code, X), (Stack, R), (Gdt, R));
    }

    [Fact]
    public void A_far_return_outwards_pops_the_stack_behind_what_it_drops()
    {
        SyntheticGuest guest = Guest(0, c => c.db(0x48, 0xCA, 0x00, 0x08));
        guest.Context.Registers.Rsp = StackNext - 0x800;
        Check(guest.Put(StackNext - 0x800, 0, UserCode).Put(StackNext + 16, 0, UserData), (Code, X), (Stack, R), (StackNext, R), (Gdt, R));
    }

    [Fact]
    public void A_far_jump_reads_its_pointer_and_descriptor()
    {
        SyntheticGuest guest = Guest(0, c => c.db(0xFF, 0x2B)); // jmp far [rbx], 32-bit offset
        guest.Write(Data + 4, (ulong)KernelCode);
        Check(guest, (Code, X), (Data, R), (Gdt, R));
    }

    [Fact]
    public void A_call_gate_inwards_changes_the_stack()
    {
        SyntheticGuest guest = Guest(3, c => c.db(0xFF, 0x1B)); // call far [rbx], 32-bit offset
        guest.Write(Data + 4, (ulong)GateSelector | 3);
        Dictionary<ulong, FaultAccess> found = guest.Locate();
        foreach ((ulong page, FaultAccess access) in guest.Expect((Code, X), (Data, R), (Gdt, R), (Tss, R), (KernelStack, W)))
        {
            Assert.True(found.GetValueOrDefault(page).HasFlag(access), $"0x{page:x}");
        }
    }

    [Theory]
    [InlineData(0, false)]
    [InlineData(UserData, true)]
    public void A_load_of_a_data_segment_looks_it_up(ushort selector, bool isLookedUp)
    {
        SyntheticGuest guest = Guest(3, c => c.mov(ds, ax));
        guest.Context.Registers.Rax = selector;
        Check(guest, isLookedUp ? [(Code, X), (Gdt, R)] : [(Code, X)]);
    }

    [Fact]
    public void A_segment_that_was_never_loaded_is_noted_in_its_descriptor()
    {
        SyntheticGuest guest = Guest(3, c => c.mov(ds, __word_ptr[rbx]));
        guest.Write(Data, (ulong)FreshData | 3);
        Check(guest, (Code, X), (Data, R), (Gdt, RW));
    }

    [Fact]
    public void A_segment_of_the_local_table_is_looked_up_there()
    {
        SyntheticGuest guest = Guest(3, c => c.pop(fs));
        Check(guest.Put(StackNext, LocalData), (Code, X), (StackNext, R), (Ldt, R));
    }

    [Fact]
    public void A_selector_beyond_the_table_is_not_looked_up()
    {
        SyntheticGuest guest = Guest(3, c => c.mov(ds, ax));
        guest.Context.Registers.Rax = 0x1003;
        Check(guest, (Code, X));
    }

    [Fact]
    public void A_far_pointer_loads_a_segment() =>
        Check(Guest(3, c => c.db(0x48, 0x0F, 0xB5, 0x03)).Put(Data + 8, UserData), (Code, X), (Data, R), (Gdt, R)); // lgs rax, [rbx]

    [Fact]
    public void A_task_becomes_busy_when_it_is_loaded()
    {
        SyntheticGuest guest = Guest(0, c => c.ltr(ax));
        guest.Context.Registers.Rax = TssSelector;
        Check(guest, (Code, X), (Gdt, RW));
    }

    [Fact]
    public void Other_looks_at_descriptors()
    {
        foreach (Action<Assembler> look in new Action<Assembler>[] { c => c.lldt(ax), c => c.verr(ax), c => c.verw(ax), c => c.lar(ecx, eax), c => c.lsl(ecx, eax) })
        {
            SyntheticGuest guest = Guest(0, look);
            guest.Context.Registers.Rax = LdtSelector;
            Check(guest, (Code, X), (Gdt, R));
        }
    }

    [Fact]
    public void Loads_of_tables_touch_their_operand_only()
    {
        Check(Guest(0, c => c.lgdt(__[rbx])), (Code, X), (Data, R));
        Check(Guest(0, c => c.lidt(__[rbx])), (Code, X), (Data, R));
        Check(Guest(0, c => c.sgdt(__[rbx])), (Code, X), (Data, W));
    }

    [Fact]
    public void A_port_that_is_not_free_to_use_is_looked_up()
    {
        Check(Guest(3, c => c.@in(al, dx)), (Code, X), (TssNext, R));
        Check(Guest(0, c => c.@in(al, dx)), (Code, X));
        SyntheticGuest free = Guest(3, c => c.@out(dx, al));
        free.Context.Registers.Rflags |= 3 << 12;
        Check(free, (Code, X));
        SyntheticGuest far = Guest(3, c => c.insb());
        far.Context.Registers.Rdi = Data;
        far.Context.Registers.Rdx = 0xFFF0;
        Check(far, (Code, X), (Data, W), (TssNext, R), (TssNext + 0x2000, R));
    }

    [Fact]
    public void A_missing_page_of_the_system_is_listed()
    {
        foreach (ulong missing in new[] { Idt, Gdt, Tss, KernelStack })
        {
            SyntheticGuest guest = Guest(3, c => c.@int(0x80));
            guest.Missing.Add(guest.Gpa(missing));
            Assert.Contains(guest.Gpa(missing), guest.Locate().Keys);
        }
    }

    private static void Check(SyntheticGuest guest, params (ulong Linear, FaultAccess Access)[] touched) =>
        Assert.Equal(guest.Expect(touched), guest.Locate());

    private static SyntheticGuest Guest(int privilege, Action<Assembler> instruction)
    {
        const ulong Segment = 0x00AF_9B00_0000_FFFF;
        const ulong Dpl3 = 3UL << 45;
        const ulong InterruptGate = 0x8EUL << 40;
        var guest = new SyntheticGuest(Paging.FourLevels, bitness: 64, privilege);
        guest.Map(Code).Map(Data).Map(Stack, 2).Map(Gdt, 8).Code(Code, instruction);
        ref VcpuSystemRegisters system = ref guest.Context.SystemRegisters;
        system.Gdt = new VcpuDescriptorTable { Base = Gdt, Limit = 0x5F };
        system.Idt = new VcpuDescriptorTable { Base = Idt, Limit = 0xFFF };

        // Its first stack is on one page, its own for interrupts on the next.
        system.Tr = new VcpuSegment { Base = TssNext - 0x20, Limit = 0x2068, Selector = TssSelector, Type = 11 };
        system.Ldt = new VcpuSegment { Base = Ldt, Limit = 0xFFF };
        guest.Write(Gdt, 0, Segment, 0x00CF_9300_0000_FFFF, Segment | Dpl3, 0x00CF_F300_0000_FFFF);
        guest.Write(Gdt + TssSelector, 0x0000_8B00_0000_0067, Kernel >> 32);
        guest.Write(Gdt + LdtSelector, 0x0000_8200_0000_0FFF, Kernel >> 32);
        guest.Write(Gdt + GateSelector, (KernelCode << 16) | (0xECUL << 40), 0);
        guest.Write(Gdt + FreshData, 0x00CF_F200_0000_FFFF);
        guest.Write(Ldt + (LocalData & ~7u), 0x00CF_F300_0000_FFFF);
        for (ulong vector = 0; vector < 256; vector++)
        {
            guest.Write(Idt + (vector * 16), (KernelCode << 16) | InterruptGate | (vector == 1 ? 1UL << 32 : 0), 0);
        }

        guest.Write(system.Tr.Base + 4, KernelStack + 0x1000);
        guest.Write(system.Tr.Base + 0x24, InterruptStack + 0x1000);
        guest.Write(system.Tr.Base + 0x66, 0x68);
        guest.Context.Registers.Rbx = Data;
        guest.Context.Registers.Rsp = StackNext;
        return guest;
    }
}
