using System.Buffers.Binary;
using Pageferry.Kvm;
using Pageferry.Linux;

namespace Pageferry.Vmm.Tests.Locating;

/// <summary>
/// A vCPU under KVM at CPL 3 with IOPL 3, in memory of 4 KiB pages each of which can be missing: an access to one ends the run with EFAULT
/// (<c>UFFD_FEATURE_SIGBUS</c>). The host reads the same memory by another mapping.
/// </summary>
internal sealed class ArmedGuest : IDisposable
{
    public const ulong PageBytes = 4096;
    public const ulong CodePage = 0x20_0000;
    public const ulong Data = 0x24_0000;
    public const ulong Other = 0x26_0000;
    public const ulong Stack = 0x28_0000;
    public const byte EndPort = 0xF4;

    /// <summary>Where the words of the data pages point to: code that ends the guest.</summary>
    public const ulong Landing = CodePage + 0x800;

    private const ulong MemoryBytes = 4 << 20;
    private const ulong Gdt = 0x1000;
    private const ulong Tss = 0x2000;
    private const ulong Pml4 = 0x3000;
    private const ulong Pdpt = 0x4000;
    private const ulong PageDirectory = 0x5000;
    private const ulong PageTables = 0x6000;
    private const ulong Idt = 0x8000;
    private const ulong Handler = 0x9000;
    private const ulong KernelStack = 0xB000;
    private const ulong UserKernelCode = 0x08;

    private readonly Kvm.Kvm _kvm = Kvm.Kvm.Open();
    private readonly VirtualMachine _virtualMachine;
    private readonly MemoryFile _file = MemoryFile.Create("armed-guest", MemoryBytes);
    private readonly MappedRegion _guestView;
    private readonly MappedRegion _hostView;
    private readonly Userfaultfd _userfaultfd = Userfaultfd.Open(UserfaultfdFeatures.Sigbus | UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem);
    private readonly HashSet<ulong> _missing = [];
    private readonly FaultCandidate[] _candidates = new FaultCandidate[FaultLocator.MostCandidates];

    public ArmedGuest()
    {
        _guestView = MappedRegion.MapShared(_file.Descriptor, 0, MemoryBytes);
        _hostView = MappedRegion.MapShared(_file.Descriptor, 0, MemoryBytes);
        _hostView.Advise(0, MemoryBytes, MemoryAdvice.PopulateWrite);
        _ = _userfaultfd.Register(_guestView.Address, MemoryBytes, UserfaultfdModes.Missing | UserfaultfdModes.Minor);
        _ = _userfaultfd.Continue(_guestView.Address, MemoryBytes, UserfaultfdCopyFlags.None, out _);
        _virtualMachine = _kvm.CreateVirtualMachine();
        _virtualMachine.SetMemoryRegion(0, 0, MemoryBytes, _guestView.Address);
        Cpu = _virtualMachine.CreateVcpu(0);
        Cpu.SetCpuid(_kvm.GetSupportedCpuid());
        Cpu.BindToCurrentThread();
        Locator = new FaultLocator(Read);
    }

    public VirtualCpu Cpu { get; }

    public FaultLocator Locator { get; }

    /// <summary>The pages that the guest's own instructions touch.</summary>
    public static IEnumerable<ulong> Pages => new[] { CodePage, Data, Other, Stack }.SelectMany(area => new[] { area, area + PageBytes });

    /// <summary>The page tables.</summary>
    public static IEnumerable<ulong> TablePages => [Pml4, Pdpt, PageDirectory, PageTables + PageBytes];

    /// <summary>Ends the guest.</summary>
    public static ReadOnlySpan<byte> End => [0xE7, EndPort, 0xEB, 0xFE];

    /// <summary>Sets memory and registers, with nothing missing.</summary>
    public void Reset(ReadOnlySpan<byte> code, ulong entry, in VcpuRegisters registers)
    {
        foreach (ulong page in _missing)
        {
            _ = _userfaultfd.Continue(_guestView.Address + page, PageBytes, UserfaultfdCopyFlags.None, out _);
        }

        _missing.Clear();
        _hostView.Span(0, (int)MemoryBytes).Clear();
        for (ulong at = Data; at < Data + (2 * PageBytes); at += sizeof(ulong))
        {
            Put(at, Landing);
            Put(at + (Other - Data), Landing);
        }

        WriteTables();
        End.CopyTo(_hostView.Span(Landing, End.Length));
        code.CopyTo(_hostView.Span(entry, code.Length));
        VcpuSystemRegisters system = Cpu.SystemRegisters;
        system.Cr0 = 0x8005_0033; // PG AM WP NE ET MP PE
        system.Cr2 = 0;
        system.Cr3 = Pml4;
        system.Cr4 = 0x0004_0620; // OSXSAVE OSXMMEXCPT OSFXSR PAE
        system.Efer = 0xD00;      // NXE LMA LME
        system.Cs = new VcpuSegment { Limit = uint.MaxValue, Selector = 0x1B, Type = 11, Present = 1, Dpl = 3, S = 1, L = 1, G = 1 };
        VcpuSegment data = new() { Limit = uint.MaxValue, Selector = 0x23, Type = 3, Present = 1, Dpl = 3, S = 1, Db = 1, G = 1 };
        (system.Ds, system.Es, system.Fs, system.Gs, system.Ss) = (data, data, data, data, data);
        system.Tr = new VcpuSegment { Base = Tss, Limit = 0x67, Selector = 0x28, Type = 11, Present = 1 };
        system.Ldt = new VcpuSegment { Unusable = 1 };
        system.Gdt = new VcpuDescriptorTable { Base = Gdt, Limit = 0x37 };
        system.Idt = new VcpuDescriptorTable { Base = Idt, Limit = 0xFFF };
        Cpu.SystemRegisters = system;
        Cpu.Xcr0 = 7;
        Cpu.Registers = registers with { Rip = entry, Rflags = 0x3002 | registers.Rflags };
    }

    /// <summary>Takes a page out of the guest's view; its content stays.</summary>
    public void Arm(ulong page)
    {
        _guestView.Advise(page, PageBytes, MemoryAdvice.DontNeed);
        _ = _missing.Add(page);
    }

    /// <summary>Runs to the guest's end, placing what it lacks and the locator finds.</summary>
    /// <returns>The missing pages in the order in which they were found; and the exit that ended it.</returns>
    public (List<ulong> Found, VcpuExit Exit) Run()
    {
        List<ulong> found = [];
        for (; ; )
        {
            VcpuExit exit = Cpu.Run();
            if (exit.Kind != VcpuExitKind.Fault)
            {
                return (found, exit);
            }

            int count = Locator.Locate(Cpu, _candidates);
            ulong[] missing = [.. _candidates[..count].Select(candidate => candidate.Gpa).Where(_missing.Contains)];
            if (missing.Length == 0)
            {
                return (found, exit);
            }

            foreach (ulong page in missing)
            {
                found.Add(page);
                _ = _missing.Remove(page);
                UserfaultfdResult result = _userfaultfd.Continue(_guestView.Address + page, PageBytes, UserfaultfdCopyFlags.None, out _);
                Assert.Equal(UserfaultfdResult.Done, result);
            }
        }
    }

    /// <summary>All of the memory that an instruction can change, and the general registers.</summary>
    public (VcpuRegisters Registers, byte[] Memory) Outcome() => (Cpu.Registers, _hostView.Span(CodePage, (int)(MemoryBytes - CodePage)).ToArray());

    public void Dispose()
    {
        Cpu.Dispose();
        _virtualMachine.Dispose();
        _kvm.Dispose();
        _guestView.Dispose();
        _hostView.Dispose();
        _userfaultfd.Dispose();
        _file.Dispose();
    }

    private bool Read(ulong gpa, Span<byte> destination)
    {
        if (gpa >= MemoryBytes || _missing.Contains(gpa & ~(PageBytes - 1)))
        {
            return false;
        }

        _hostView.Span(gpa, destination.Length).CopyTo(destination);
        return true;
    }

    private void WriteTables()
    {
        const ulong PresentWritableUser = 0x67; // accessed and dirty too
        Put(Gdt + UserKernelCode, 0x00AF_9B00_0000_FFFF);
        Put(Gdt + 0x10, 0x00CF_9300_0000_FFFF);
        Put(Gdt + 0x18, 0x00AF_FB00_0000_FFFF);
        Put(Gdt + 0x20, 0x00CF_F300_0000_FFFF);
        Put(Gdt + 0x28, 0x0000_8B00_0000_0067 | (Tss << 16));
        Put(Tss + 4, KernelStack + PageBytes);
        for (ulong vector = 0; vector < 256; vector++)
        {
            // Present, an interrupt gate, for CPL 3 too.
            Put(Idt + (vector * 16), (Handler & 0xFFFF) | (UserKernelCode << 16) | (0xEE00UL << 32));
        }

        _hostView.Span(Handler, 1)[0] = 0xF4; // hlt
        Put(Pml4, Pdpt | PresentWritableUser);
        Put(Pdpt, PageDirectory | PresentWritableUser);
        for (ulong table = 0; table < MemoryBytes >> 21; table++)
        {
            Put(PageDirectory + (table * 8), (PageTables + (table * PageBytes)) | PresentWritableUser);
            for (ulong page = 0; page < 512; page++)
            {
                Put(PageTables + (table * PageBytes) + (page * 8), (table << 21) | (page << 12) | PresentWritableUser);
            }
        }
    }

    private void Put(ulong gpa, ulong word) => BinaryPrimitives.WriteUInt64LittleEndian(_hostView.Span(gpa, sizeof(ulong)), word);
}
