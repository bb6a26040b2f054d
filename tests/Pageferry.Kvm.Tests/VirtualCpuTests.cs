using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

[NeedsKvm]
public class VirtualCpuTests
{
    [Fact]
    public void The_time_stamp_counter_has_a_processors_frequency()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        Assert.InRange(vcpu.GetTscFrequency(), 100_000_000, 10_000_000_000);
    }

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
        const int Kicks = 5_000;
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
}
