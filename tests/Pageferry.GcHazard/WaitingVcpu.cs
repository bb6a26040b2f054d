using System.Runtime.InteropServices;
using Pageferry.Kvm;
using Pageferry.Kvm.Tests;
using Pageferry.Linux;

namespace Pageferry.GcHazard;

/// <summary>A vCPU inside KVM_RUN waits for a page that is placed only after several garbage collections have ended.</summary>
internal static class WaitingVcpu
{
    private const int Collections = 20;
    private const byte Content = 0x5A;
    private const ushort Port = 0x10;
    private const ulong KvmRun = 0xae80;
    private const int RuntimeSignal = 34; // SIGRTMIN
    private const int SigsetWords = 16;

    /// <summary>By the library: <see cref="VirtualCpu.Run"/>.</summary>
    public static void Run() => Run(vcpu => vcpu.Run());

    /// <summary>
    /// What must not be done: the same system call by a thread that the runtime takes to be in managed code. The signal by which the runtime would ask it to
    /// stop is blocked: it would interrupt KVM_RUN, and the guest would lose its time to collections instead of the collector to the guest.
    /// </summary>
    public static void RunWithoutTransition()
    {
        // SAFETY: a set of local words, longer than the C library's sigset_t.
        unsafe
        {
            ulong* set = stackalloc ulong[SigsetWords];
            new Span<ulong>(set, SigsetWords).Clear();
            set[0] = 1UL << (RuntimeSignal - 1);
            _ = BlockSignals(0, set, null);
        }

        Run(vcpu =>
        {
            nint ioctl = NativeLibrary.GetExport(NativeLibrary.Load("libc.so.6"), "ioctl");

            // SAFETY: ioctl(2) with a number as its argument; KVM_RUN touches no memory of the caller's but the vCPU's own.
            unsafe
            {
                _ = ((delegate* unmanaged[Cdecl, SuppressGCTransition]<int, ulong, nint, int>)ioctl)(vcpu.Descriptor.Number, KvmRun, 0);
            }

            return new VcpuExit(VcpuExitKind.PortWrite, 2, Port, 1, 1);
        });
    }

    private static void Run(Func<VirtualCpu, VcpuExit> run)
    {
        using Kvm.Kvm kvm = Kvm.Kvm.Open();
        using var machine = new TestMachine(kvm);

        // mov al, [DataAddress]; out Port, al
        machine.Load([0x8A, 0x04, 0x25, .. BitConverter.GetBytes((uint)TestMachine.DataAddress), 0xE6, (byte)Port]);
        machine.Boot();
        ulong missing = machine.Memory.Address + TestMachine.DataAddress;
        machine.Memory.Advise(TestMachine.DataAddress, TestMachine.PageSize, MemoryAdvice.DontNeed);
        using Userfaultfd userfaultfd = Userfaultfd.Open(UserfaultfdFeatures.None);
        _ = userfaultfd.Register(missing, TestMachine.PageSize, UserfaultfdModes.Missing);
        using MappedRegion content = MappedRegion.MapAnonymous(TestMachine.PageSize);
        content.Span(0, (int)TestMachine.PageSize).Fill(Content);

        int ended = 0;
        var handler = new Thread(() =>
        {
            new Poll(userfaultfd.Descriptor).Wait(Timeout.Infinite);
            for (int i = 0; i < Collections; i++)
            {
                GC.Collect();
                ended++;
            }

            _ = userfaultfd.Copy(missing, content.Address, TestMachine.PageSize, UserfaultfdCopyFlags.None, out _);
        });
        handler.Start();
        machine.Cpu.BindToCurrentThread();
        VcpuExit exit = run(machine.Cpu);
        handler.Join();
        byte found = machine.Cpu.Data(exit)[0];
        if (exit.Kind != VcpuExitKind.PortWrite || found != Content || ended != Collections)
        {
            throw new InvalidOperationException($"{exit} with 0x{found:x} after {ended} collections.");
        }
    }

    [DllImport("libc", EntryPoint = "pthread_sigmask")]
    private static extern unsafe int BlockSignals(int how, ulong* set, ulong* old);
}
