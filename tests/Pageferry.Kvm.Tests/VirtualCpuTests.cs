using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

public class VirtualCpuTests
{
    [Fact]
    public void A_kick_is_never_lost()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using MappedRegion memory = MappedRegion.MapAnonymous(4096);
        using VirtualCpu vcpu = machine.CreateVcpu(0);

        // jmp $, in real mode at address 0.
        ReadOnlySpan<byte> forever = [0xEB, 0xFE];
        forever.CopyTo(memory.Span(0, 2));
        machine.SetMemoryRegion(0, 0, memory.Length, memory.Address);
        VcpuSystemRegisters system = vcpu.SystemRegisters;
        system.Cs = system.Cs with { Base = 0, Selector = 0 };
        vcpu.SystemRegisters = system;
        vcpu.Registers = new VcpuRegisters { Rip = 0, Rflags = 2 };
        const int Kicks = 20_000;
        int seen = 0;
        bool enough = false;
        using var bound = new ManualResetEventSlim();
        var runner = new Thread(() =>
        {
            vcpu.BindToCurrentThread();
            bound.Set();
            while (!Volatile.Read(ref enough))
            {
                if (vcpu.Run().Kind == VcpuExitKind.Interrupted)
                {
                    _ = Interlocked.Increment(ref seen);
                }
            }
        });
        runner.Start();
        bound.Wait(TestContext.Current.CancellationToken);
        for (int i = 0; i < Kicks; i++)
        {
            int before = Volatile.Read(ref seen);
            vcpu.Kick();
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref seen) > before, TimeSpan.FromSeconds(10)), $"Kick {i} was lost.");
        }

        // The runner is not stopped by its count: a kick whose flag and signal are seen by two runs interrupts both.
        Volatile.Write(ref enough, true);
        vcpu.Kick();
        Assert.True(runner.Join(TimeSpan.FromSeconds(10)));
    }

    [Fact]
    public void A_state_survives_its_binary_form()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        vcpu.SetCpuid(kvm.GetSupportedCpuid());
        vcpu.Registers = vcpu.Registers with { Rax = 0x1122334455667788, R15 = ulong.MaxValue };
        byte[] saved = VcpuState.Capture(machine, vcpu).Serialize();

        using VirtualMachine other = kvm.CreateVirtualMachine();
        using VirtualCpu target = other.CreateVcpu(0);
        VcpuState.Deserialize(saved).Restore(other, target);
        VcpuState read = VcpuState.Capture(other, target);
        Assert.Equal(0x1122334455667788UL, read.Registers.Rax);
        Assert.Equal(ulong.MaxValue, read.Registers.R15);
        Assert.Equal(vcpu.SystemRegisters, target.SystemRegisters);
    }

    [Fact]
    public void A_vcpu_beyond_the_limit_is_refused_with_the_limit()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        LinuxException failure = Assert.Throws<LinuxException>(() => machine.CreateVcpu(1 << 20));
        Assert.Contains($"{kvm.MaxVcpus}", failure.Message, StringComparison.Ordinal);
    }
}
