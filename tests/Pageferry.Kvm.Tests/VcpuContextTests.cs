namespace Pageferry.Kvm.Tests;

/// <summary>A vCPU's context is the same from its shared memory and by system calls, and never an old one.</summary>
[NeedsKvm]
public class VcpuContextTests
{
    // mov eax, 0x1234; out 0xF5, eax; inc eax; out 0xF6, eax
    private static readonly byte[] s_code = [0xB8, 0x34, 0x12, 0x00, 0x00, 0xE7, 0xF5, 0xFF, 0xC0, 0xE7, 0xF6];

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void It_is_what_the_registers_are(bool synchronized)
    {
        using Kvm kvm = Kvm.Open();
        using var machine = new TestMachine(kvm);
        Assert.SkipWhen(synchronized && !machine.Cpu.TrySynchronizeContext(), "This kernel leaves no registers in a vCPU's shared memory (KVM_CAP_SYNC_REGS).");
        machine.Boot();
        machine.Load(s_code);
        Assert.Equal(TestMachine.CodeAddress, machine.Cpu.ReadContext().Registers.Rip);
        machine.RunTo(0xF5);
        Check(machine.Cpu, rax: 0x1234);
        machine.RunTo(0xF6);
        Check(machine.Cpu, rax: 0x1235);

        // What is set after a run is not in the shared memory.
        machine.Cpu.Registers = machine.Cpu.Registers with { Rax = 7 };
        Check(machine.Cpu, rax: 7);
        machine.Cpu.SystemRegisters = machine.Cpu.SystemRegisters with { Cr2 = 0x5000 };
        Check(machine.Cpu, rax: 7);
        Assert.Equal(0x5000UL, machine.Cpu.ReadContext().SystemRegisters.Cr2);
    }

    [Fact]
    public void An_xsave_area_has_its_length()
    {
        using Kvm kvm = Kvm.Open();
        using var machine = new TestMachine(kvm);
        machine.Boot();
        Assert.True(machine.Cpu.XsaveBytes >= Interop.XsaveBytes);
        _ = Assert.Throws<ArgumentException>(() => machine.Cpu.ReadXsave(new byte[machine.Cpu.XsaveBytes - 1]));
        var area = new byte[machine.Cpu.XsaveBytes];
        machine.Cpu.ReadXsave(area);

        // MXCSR of a vCPU that has not run.
        Assert.Equal(0x1F80, BitConverter.ToInt32(area, 24));
    }

    private static void Check(VirtualCpu vcpu, ulong rax)
    {
        VcpuContext context = vcpu.ReadContext();
        Assert.Equal(rax, context.Registers.Rax);
        Assert.Equal(vcpu.Registers, context.Registers);
        Assert.Equal(vcpu.SystemRegisters, context.SystemRegisters);
    }
}
