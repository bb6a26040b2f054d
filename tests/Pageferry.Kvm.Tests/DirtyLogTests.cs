using Iced.Intel;
using Pageferry.Linux;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Kvm.Tests;

[NeedsKvm]
public class DirtyLogTests
{
    private const ulong FirstDataGfn = TestMachine.DataAddress / TestMachine.PageSize;
    private const ushort Port = 0x10;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_pages_that_the_guest_writes_are_logged_until_they_are_cleared(bool manual)
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = WriterOf(kvm, manual, 0, 3, 63, 64);
        Assert.Equal(manual, machine.VirtualMachine.HasManualDirtyLog);
        using DirtyLog log = machine.VirtualMachine.CreateDirtyLog(0);
        Assert.Equal(0UL, log.FirstGfn);
        Assert.Equal(TestMachine.MemoryLength / TestMachine.PageSize, log.PageCount);

        // What KVM did on the way here.
        log.Read();
        log.Clear();
        machine.RunTo(Port);
        log.Read();
        ulong[] expected = [FirstDataGfn, FirstDataGfn + 3, FirstDataGfn + 63, FirstDataGfn + 64];
        Assert.Equal(expected, DataPages(log));
        Assert.True(log.DirtyCount >= 4);
        Assert.True(log.IsDirty(FirstDataGfn + 63));
        Assert.False(log.IsDirty(FirstDataGfn + 62));

        // Nothing is written in between: reading has cleared, or clearing does.
        log.Read();
        Assert.Equal(manual ? expected : [], DataPages(log));
        log.Clear();
        log.Read();
        Assert.Empty(DataPages(log));

        // The guest writes the same pages again.
        machine.RunTo(Port);
        log.Read();
        Assert.Equal(expected, DataPages(log));
    }

    [Fact]
    public void A_range_is_cleared_alone()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = WriterOf(kvm, manual: true, 0, 64);
        using DirtyLog log = machine.VirtualMachine.CreateDirtyLog(0);
        machine.RunTo(Port);
        log.Read();
        log.Clear(FirstDataGfn, 64);
        log.Read();
        Assert.Equal([FirstDataGfn + 64], DataPages(log));
    }

    [Fact]
    public void What_is_written_after_a_range_was_cleared_is_not_cleared_by_clearing_it_again()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = WriterOf(kvm, manual: true, 0, 1);
        using DirtyLog log = machine.VirtualMachine.CreateDirtyLog(0);
        machine.RunTo(Port);
        log.Read();
        log.Clear(FirstDataGfn, 64);
        Assert.Empty(DataPages(log));
        machine.RunTo(Port);
        log.Clear(FirstDataGfn, 64);
        log.Read();
        Assert.Equal([FirstDataGfn, FirstDataGfn + 1], DataPages(log));
    }

    [Fact]
    public void Reading_clearing_and_enumerating_allocate_nothing()
    {
        using Kvm kvm = Kvm.Open();
        using TestMachine machine = WriterOf(kvm, manual: true, 0, 1);
        using DirtyLog log = machine.VirtualMachine.CreateDirtyLog(0);
        machine.RunTo(Port);
        ulong sum = ReadSumAndClear(log);
        long before = GC.GetAllocatedBytesForCurrentThread();
        sum += ReadSumAndClear(log);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
        Assert.NotEqual(0UL, sum);
    }

    [Fact]
    public void Wrong_slots_and_ranges_are_refused()
    {
        using Kvm kvm = Kvm.Open();
        using var machine = new TestMachine(kvm, manualDirtyLog: true);
        VirtualMachine virtualMachine = machine.VirtualMachine;
        Assert.Contains("slot 7", Assert.Throws<ArgumentException>(() => virtualMachine.CreateDirtyLog(7)).Message, StringComparison.Ordinal);

        using DirtyLog log = virtualMachine.CreateDirtyLog(0);
        LinuxException unlogged = Assert.Throws<LinuxException>(log.Read);
        Assert.Equal(Errno.ENOENT, unlogged.Errno);
        Assert.Contains("LogDirtyPages", unlogged.Message, StringComparison.Ordinal);

        _ = Assert.Throws<ArgumentOutOfRangeException>(() => log.Clear(1, 64));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => log.Clear(0, 63));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => log.Clear(0, log.PageCount + 64));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => log.Clear(0, 0));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => log.IsDirty(log.PageCount));

        // The kernel would fill a bitmap as long as the slot that is there now.
        virtualMachine.SetMemoryRegion(0, 0, 0, 0);
        _ = Assert.Throws<InvalidOperationException>(log.Read);
        virtualMachine.SetMemoryRegion(0, 0, machine.Memory.Length / 2, machine.Memory.Address, MemoryRegionFlags.LogDirtyPages);
        _ = Assert.Throws<InvalidOperationException>(log.Read);
        _ = Assert.Throws<InvalidOperationException>(log.Clear);
    }

    /// <summary>A machine whose guest writes some data pages and leaves by <see cref="Port"/>, again and again.</summary>
    private static TestMachine WriterOf(Kvm kvm, bool manual, params ulong[] pages)
    {
        var machine = new TestMachine(kvm, flags: MemoryRegionFlags.LogDirtyPages, manualDirtyLog: manual);
        var asm = new Assembler(64);
        Label again = asm.CreateLabel();
        asm.Label(ref again);
        foreach (ulong page in pages)
        {
            asm.mov(rbx, TestMachine.DataAddress + (page * TestMachine.PageSize));
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

    private static ulong[] DataPages(DirtyLog log)
    {
        var pages = new List<ulong>();
        foreach (ulong gfn in log)
        {
            if (gfn is >= FirstDataGfn and < TestMachine.StackTop / TestMachine.PageSize)
            {
                pages.Add(gfn);
            }
        }

        return [.. pages];
    }

    private static ulong ReadSumAndClear(DirtyLog log)
    {
        ulong sum = 0;
        log.Read();
        foreach (ulong gfn in log)
        {
            sum += gfn;
        }

        log.Clear();
        return sum;
    }
}
