using System.Buffers.Binary;
using Pageferry.Linux;

namespace Pageferry.Kvm.Tests;

/// <summary>
/// A virtual machine with one vCPU in 64-bit mode at CPL 3 with IOPL 3, so that <c>out</c> is its hypercall: 4 MiB of memory,
/// identity-mapped by 4 KiB pages.
/// </summary>
internal sealed class TestMachine : IDisposable
{
    public const ulong PageSize = 4096;
    public const ulong MemoryLength = 4 << 20;
    public const ulong CodeAddress = 0x20_0000;
    public const ulong DataAddress = 0x28_0000;
    public const ulong StackTop = 0x30_0000;

    private const ulong Gdt = 0x1000;

    /// <summary>All zeros, so that it is an I/O bitmap too: a software KVM that does not see IOPL 3 allows the ports below 0x340 by it.</summary>
    private const ulong Tss = 0x2000;

    private const ulong Pml4 = 0x3000;
    private const ulong Pdpt = 0x4000;
    private const ulong PageDirectory = 0x5000;
    private const ulong PageTables = 0x6000;
    private const ushort CodeSelector = 0x08 | 3;
    private const ushort DataSelector = 0x10 | 3;
    private const ushort TssSelector = 0x18;
    private const ulong PresentWritableUser = 0x67; // accessed and dirty too

    public TestMachine(Kvm kvm, bool irqchip = false, MemoryRegionFlags flags = MemoryRegionFlags.None, bool manualDirtyLog = false, int dirtyRing = 0)
    {
        VirtualMachine = kvm.CreateVirtualMachine();
        if (irqchip)
        {
            VirtualMachine.CreateIrqchip();
        }

        if (manualDirtyLog)
        {
            Assert(VirtualMachine.TryEnableManualDirtyLog());
        }

        if (dirtyRing > 0)
        {
            Assert(VirtualMachine.TryEnableDirtyRings(dirtyRing));
        }

        Memory = MappedRegion.MapAnonymous(MemoryLength);
        WriteTables();
        VirtualMachine.SetMemoryRegion(0, 0, MemoryLength, Memory.Address, flags);
        Cpu = VirtualMachine.CreateVcpu(0);
    }

    public VirtualMachine VirtualMachine { get; }

    /// <summary>The guest's memory; guest physical address 0 is its offset 0.</summary>
    public MappedRegion Memory { get; }

    public VirtualCpu Cpu { get; }

    /// <summary>The vCPU's state at its first instruction.</summary>
    /// <param name="vectors">XCR0.</param>
    public void Boot(ulong vectors = 3)
    {
        Cpu.SetCpuid(VirtualMachine.Kvm.GetSupportedCpuid());
        VcpuSystemRegisters system = Cpu.SystemRegisters;
        system.Cr0 = 0x8005_0033; // PG AM WP NE ET MP PE
        system.Cr3 = Pml4;
        system.Cr4 = 0x0004_0620; // OSXSAVE OSXMMEXCPT OSFXSR PAE
        system.Efer = 0xD00;      // NXE LMA LME
        system.Cs = new VcpuSegment { Limit = uint.MaxValue, Selector = CodeSelector, Type = 11, Present = 1, Dpl = 3, S = 1, L = 1, G = 1 };
        VcpuSegment data = new() { Limit = uint.MaxValue, Selector = DataSelector, Type = 3, Present = 1, Dpl = 3, S = 1, Db = 1, G = 1 };
        (system.Ds, system.Es, system.Fs, system.Gs, system.Ss) = (data, data, data, data, data);
        system.Tr = new VcpuSegment { Base = Tss, Limit = 0x67, Selector = TssSelector, Type = 11, Present = 1 };
        system.Ldt = new VcpuSegment { Unusable = 1 };
        system.Gdt = new VcpuDescriptorTable { Base = Gdt, Limit = 0x1F };
        system.Idt = default;
        Cpu.SystemRegisters = system;
        Cpu.Xcr0 = vectors;
        Cpu.Registers = new VcpuRegisters { Rip = CodeAddress, Rsp = StackTop, Rflags = 0x3002 };
    }

    /// <summary>Loads the guest's code.</summary>
    public void Load(ReadOnlySpan<byte> code) => code.CopyTo(Memory.Span(CodeAddress, code.Length));

    /// <summary>Maps a page of the guest to another guest physical address.</summary>
    public void Map(ulong address, ulong gpa) => Put(PageTables + (address / PageSize * 8), gpa | PresentWritableUser);

    /// <summary>Runs to the guest's next exit: a signal of the runtime's may end a run too.</summary>
    public VcpuExit Run()
    {
        VcpuExit exit;
        do
        {
            exit = Cpu.Run();
        }
        while (exit.Kind == VcpuExitKind.Interrupted);
        return exit;
    }

    /// <summary>Runs to the guest's next <c>out</c>, and completes that instruction, so that the state is whole.</summary>
    /// <param name="port">The port that is expected.</param>
    public void RunTo(ushort port)
    {
        Cpu.BindToCurrentThread();
        VcpuExit exit = Run();
        if (exit.Kind != VcpuExitKind.PortWrite || exit.Address != port)
        {
            VcpuRegisters at = Cpu.Registers;
            throw new InvalidOperationException($"Port 0x{port:x} was expected: {exit} at {at}");
        }

        Cpu.Kick();
        Assert(Cpu.Run().Kind == VcpuExitKind.Interrupted);
    }

    public void Dispose()
    {
        Cpu.Dispose();
        VirtualMachine.Dispose();
        Memory.Dispose();
    }

    private static void Assert(bool condition)
    {
        if (!condition)
        {
            throw new InvalidOperationException("KVM did not do what the test needs.");
        }
    }

    private void WriteTables()
    {
        Put(Gdt + (CodeSelector & ~7u), 0x00AF_FB00_0000_FFFF);
        Put(Gdt + (DataSelector & ~7u), 0x00CF_F300_0000_FFFF);
        Put(Gdt + TssSelector, 0x0000_8B00_0000_0067 | (Tss << 16));
        Put(Pml4, Pdpt | PresentWritableUser);
        Put(Pdpt, PageDirectory | PresentWritableUser);
        for (ulong table = 0; table < MemoryLength >> 21; table++)
        {
            Put(PageDirectory + (table * 8), (PageTables + (table * PageSize)) | PresentWritableUser);
            for (ulong page = 0; page < 512; page++)
            {
                Put(PageTables + (table * PageSize) + (page * 8), (table << 21) | (page << 12) | PresentWritableUser);
            }
        }
    }

    private void Put(ulong gpa, ulong word) => BinaryPrimitives.WriteUInt64LittleEndian(Memory.Span(gpa, sizeof(ulong)), word);
}
