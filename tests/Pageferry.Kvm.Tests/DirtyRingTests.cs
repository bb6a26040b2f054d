using Iced.Intel;
using Pageferry.Linux;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Kvm.Tests;

public sealed class DirtyRingTests : IDisposable
{
    private const ulong FirstDataPage = TestMachine.DataAddress / TestMachine.PageSize;
    private const ushort Port = 0x10;

    private readonly Kvm _kvm;
    private readonly int _entries;

    public DirtyRingTests()
    {
        KvmDevice.SkipIfMissing();
        _kvm = Kvm.Open();
        Assert.SkipUnless(_kvm.CheckExtension(KvmCapability.DirtyLogRing) > 0, "KVM has no dirty rings (KVM_CAP_DIRTY_LOG_RING).");

        // The least that the kernel takes: where the processor collects 512 pages itself, room for them is held back.
        using VirtualMachine probe = _kvm.CreateVirtualMachine();
        try
        {
            _ = probe.TryEnableDirtyRings(256);
            _entries = 256;
        }
        catch (LinuxException)
        {
            _entries = 1024;
        }
    }

    public void Dispose() => _kvm.Dispose();

    [Fact]
    public void Pages_are_told_once_in_the_order_of_their_first_writes_until_they_are_reset()
    {
        using TestMachine machine = WriterOf(FirstDataPage + 5, FirstDataPage + 3, FirstDataPage + 64, FirstDataPage + 3, FirstDataPage + 5);
        ulong[] expected = [FirstDataPage + 5, FirstDataPage + 3, FirstDataPage + 64];
        machine.RunTo(Port);
        ulong[] all = Take(machine);
        Assert.Equal(expected, all.Where(page => page >= FirstDataPage));
        Assert.Empty(Take(machine));

        // Taken, but not reset: the kernel does not look at them.
        machine.RunTo(Port);
        Assert.Empty(Take(machine));

        Assert.Equal(all.Length, machine.VirtualMachine.ResetDirtyRings());
        Assert.Equal(0, machine.VirtualMachine.ResetDirtyRings());
        machine.RunTo(Port);
        Assert.Equal(expected, Take(machine).Where(page => page >= FirstDataPage));
    }

    [Fact]
    public void A_full_ring_stops_its_vcpu_until_it_is_emptied_and_reset()
    {
        // All that is neither tables nor code: more than fits, less than would go round twice.
        ulong[] written = [.. Range(256, 512), .. Range(FirstDataPage, 1024)];
        using TestMachine machine = WriterOf(written);
        machine.Cpu.BindToCurrentThread();
        Assert.Equal(VcpuExitKind.DirtyRingFull, machine.Run().Kind);
        Assert.Equal(VcpuExitKind.DirtyRingFull, machine.Run().Kind);
        HashSet<ulong> told = [.. Take(machine)];
        Assert.Equal(VcpuExitKind.DirtyRingFull, machine.Run().Kind);
        Assert.True(machine.VirtualMachine.ResetDirtyRings() > 0);
        VcpuExit exit;
        while ((exit = machine.Run()).Kind == VcpuExitKind.DirtyRingFull)
        {
            told.UnionWith(Take(machine));
            _ = machine.VirtualMachine.ResetDirtyRings();
        }

        Assert.Equal(VcpuExitKind.PortWrite, exit.Kind);
        told.UnionWith(Take(machine));
        Assert.Subset(told, written.ToHashSet());
    }

    [Fact]
    public void Taking_and_resetting_allocate_nothing()
    {
        using TestMachine machine = WriterOf(Range(FirstDataPage, FirstDataPage + 3));
        machine.RunTo(Port);
        int taken = TakeAndReset(machine);
        machine.RunTo(Port);
        long before = GC.GetAllocatedBytesForCurrentThread();
        taken += TakeAndReset(machine);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
        Assert.True(taken >= 6);
    }

    [Fact]
    public void Rings_come_before_vcpus_once_in_a_size_that_the_kernel_takes_and_in_place_of_logs()
    {
        using var late = new TestMachine(_kvm);
        Assert.Null(late.Cpu.DirtyRing);
        LinuxException refused = Assert.Throws<LinuxException>(() => late.VirtualMachine.TryEnableDirtyRings(_entries));
        Assert.Equal(Errno.EINVAL, refused.Errno);
        Assert.Contains("before the first vCPU", refused.Message, StringComparison.Ordinal);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => late.VirtualMachine.ResetDirtyRings()).Errno);

        using VirtualMachine odd = _kvm.CreateVirtualMachine();
        _ = Assert.Throws<LinuxException>(() => odd.TryEnableDirtyRings(_entries + 1));
        _ = Assert.Throws<LinuxException>(() => odd.TryEnableDirtyRings(1 << 30));
        _ = Assert.Throws<LinuxException>(() => odd.TryEnableDirtyRings(-1));
        Assert.Equal(0, odd.DirtyRingEntries);

        using TestMachine machine = WriterOf(FirstDataPage);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => machine.VirtualMachine.TryEnableDirtyRings(_entries)).Errno);
        using DirtyLog log = machine.VirtualMachine.CreateDirtyLog(0);
        Assert.Equal(Errno.ENXIO, Assert.Throws<LinuxException>(log.Read).Errno);
    }

    /// <summary>A machine whose guest writes some pages and leaves by <see cref="Port"/>, again and again.</summary>
    private TestMachine WriterOf(params ulong[] pages)
    {
        var machine = new TestMachine(_kvm, flags: MemoryRegionFlags.LogDirtyPages, dirtyRing: _entries);
        var asm = new Assembler(64);
        Label again = asm.CreateLabel();
        asm.Label(ref again);
        foreach (ulong page in pages)
        {
            asm.mov(rbx, page * TestMachine.PageSize);
            asm.inc(__qword_ptr[rbx]);
        }

        asm.@out((byte)Port, al);
        asm.jmp(again);
        using var code = new MemoryStream();
        _ = asm.Assemble(new StreamCodeWriter(code), TestMachine.CodeAddress);
        machine.Load(code.ToArray());
        machine.Boot();
        return machine;
    }

    private static ulong[] Range(ulong first, ulong end) => [.. Enumerable.Range((int)first, (int)(end - first)).Select(page => (ulong)page)];

    private static ulong[] Take(TestMachine machine)
    {
        List<ulong> pages = [];
        while (machine.Cpu.DirtyRing!.TryTake(out uint slot, out ulong page))
        {
            Assert.Equal(0u, slot);
            pages.Add(page);
        }

        return [.. pages];
    }

    private static int TakeAndReset(TestMachine machine)
    {
        int taken = 0;
        while (machine.Cpu.DirtyRing!.TryTake(out _, out _))
        {
            taken++;
        }

        _ = machine.VirtualMachine.ResetDirtyRings();
        return taken;
    }
}
