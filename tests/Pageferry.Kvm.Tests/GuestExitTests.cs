using Iced.Intel;
using Pageferry.Linux;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Kvm.Tests;

/// <summary>What a real guest does arrives as the exit that says so.</summary>
[NeedsKvm]
public class GuestExitTests
{
    private const ulong Nowhere = 0x4000_0000;

    [Fact]
    public void A_port_write_has_its_data()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = Booted(kvm, asm =>
        {
            asm.mov(eax, 0x11223344);
            asm.mov(edx, 0x43);
            asm.@out(dx, eax);
        });
        VcpuExit exit = machine.Run();
        Assert.Equal(new VcpuExit(VcpuExitKind.PortWrite, Interop.KVM_EXIT_IO, 0x43, 4, 1), exit);
        Assert.Equal([0x44, 0x33, 0x22, 0x11], machine.Cpu.Data(exit).ToArray());
    }

    [Fact]
    public void A_port_read_takes_the_data_that_it_is_given()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = Booted(kvm, asm =>
        {
            asm.@in(al, 0x42);
            asm.@out(0x43, al);
        });
        VcpuExit exit = machine.Run();
        Assert.Equal(new VcpuExit(VcpuExitKind.PortRead, Interop.KVM_EXIT_IO, 0x42, 1, 1), exit);
        machine.Cpu.Data(exit)[0] = 0x5A;
        exit = machine.Run();
        Assert.Equal((VcpuExitKind.PortWrite, 0x43UL), (exit.Kind, exit.Address));
        Assert.Equal([0x5A], machine.Cpu.Data(exit).ToArray());
    }

    [Fact]
    public void Memory_that_is_in_no_slot_is_mmio()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = Booted(kvm, asm =>
        {
            asm.mov(rbx, TestMachine.DataAddress);
            asm.mov(__dword_ptr[rbx], 0x55667788);
        });

        // The page table's entry of the data page points beyond the slot.
        machine.Map(TestMachine.DataAddress, Nowhere);
        VcpuExit exit = machine.Run();
        Assert.Equal(new VcpuExit(VcpuExitKind.MmioWrite, Interop.KVM_EXIT_MMIO, Nowhere, 4, 1), exit);
        Assert.Equal([0x88, 0x77, 0x66, 0x55], machine.Cpu.Data(exit).ToArray());
    }

    [Fact]
    public void Memory_that_this_process_has_not_is_a_fault()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = Booted(kvm, asm =>
        {
            asm.mov(rbx, TestMachine.DataAddress);
            asm.mov(al, __byte_ptr[rbx]);
        });
        machine.Memory.Protect(TestMachine.DataAddress, TestMachine.PageSize, MemoryProtection.None);
        VcpuExit exit = machine.Run();

        // Which one depends on the kernel: only some know the address.
        Assert.True(
            exit.Kind == VcpuExitKind.Fault || (exit.Kind == VcpuExitKind.MemoryFault && exit.Address == TestMachine.DataAddress),
            exit.ToString());
    }

    [Fact]
    public void An_exception_without_a_handler_is_a_shutdown()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = Booted(kvm, asm => asm.ud2());
        Assert.Equal(VcpuExitKind.Shutdown, machine.Run().Kind);
    }

    [Fact]
    public void A_kick_before_the_run_interrupts_it()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = Booted(kvm, asm => asm.@out(0x43, al));
        machine.Cpu.Kick();
        Assert.Equal(VcpuExitKind.Interrupted, machine.Cpu.Run().Kind);
        Assert.Equal(TestMachine.CodeAddress, machine.Cpu.Registers.Rip);
        Assert.Equal(VcpuExitKind.PortWrite, machine.Run().Kind);
    }

    private static TestMachine Booted(Kvm kvm, Action<Assembler> write)
    {
        var asm = new Assembler(64);
        write(asm);
        using var code = new MemoryStream();
        _ = asm.Assemble(new StreamCodeWriter(code), TestMachine.CodeAddress);
        var machine = new TestMachine(kvm);
        machine.Load(code.ToArray());
        machine.Boot();
        machine.Cpu.BindToCurrentThread();
        return machine;
    }
}
