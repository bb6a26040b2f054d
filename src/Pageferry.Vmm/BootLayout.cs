using System.Buffers.Binary;
using Pageferry.Kvm;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Where what the VMM prepares lies in the guest's first MiB, and the state that a vCPU starts in.</summary>
/// <remarks>
/// <code>
/// 0x00000            an invalid instruction, for calls of null
/// 0x01000            GDT
/// 0x02000 +  128 * n TSS of vCPU n
/// 0x04000            IDT, whose handlers halt
/// 0x05000            the handlers
/// 0x06000 +  256 * n exception stack of vCPU n
/// 0x10000 +  256 * n boot info of vCPU n
/// 0x20000            PML4, then the PDPT, then a page directory per GiB: all memory identity-mapped by 2 MiB pages
/// 0xB0000 + 4096 * n stack of vCPU n
/// 0x100000           a flat guest, and the built-in ones
/// </code>
/// <para>
/// The boot info, little-endian, at RDI:
/// </para>
/// <code>
///  0 u64 magic, <see cref="BootInfoMagic"/>
///  8 u32 version, <see cref="BootInfoVersion"/>; later versions only add
/// 16 u64 memory size in bytes
/// 24 u32 index of this vCPU
/// 28 u32 number of vCPUs
/// 32 u64 boot seed
/// 40 u64 passes that a built-in guest makes before it ends with code 0; 0 for no end
/// 48 u64 first address behind the guest's image: from here to the end of memory nothing is used
/// </code>
/// <para>
/// A vCPU enters the image as if called: RSP is 8 below a multiple of 16 and points to a return address, which is 0. RFLAGS are those of an interrupt-free
/// start (IF 0) with IOPL 3; SSE and, where the processor has it, AVX can be used.
/// </para>
/// </remarks>
public static class BootLayout
{
    /// <summary>The least memory of a machine: 4 MiB.</summary>
    public const ulong LeastMemory = 4 << 20;

    /// <summary>The most memory of a machine: its page directories lie below the stacks.</summary>
    public const ulong MostMemory = 128UL << 30;

    /// <summary>The most vCPUs of a machine: their boot info and stacks have to fit.</summary>
    public const int MostVcpus = 64;

    /// <summary>Where a flat guest is loaded and started.</summary>
    public const ulong GuestBase = 0x10_0000;

    /// <summary>The first word of the boot info: "PGFERRY1" in memory.</summary>
    public const ulong BootInfoMagic = 0x3159_5252_4546_4750;

    /// <summary>The version of the boot info.</summary>
    public const uint BootInfoVersion = 1;

    /// <summary>Offsets in the boot info.</summary>
    internal const int InfoVersion = 8;
    internal const int InfoMemorySize = 16;
    internal const int InfoVcpuIndex = 24;
    internal const int InfoVcpuCount = 28;
    internal const int InfoSeed = 32;
    internal const int InfoPasses = 40;
    internal const int InfoFreeMemory = 48;

    /// <summary>The table whose gates lead to <see cref="Handlers"/>.</summary>
    internal const ulong Idt = 0x4000;

    /// <summary>One handler per exception.</summary>
    internal const ulong Handlers = 0x5000;

    /// <summary>Bytes of a vCPU's stack for exceptions.</summary>
    internal const ulong ExceptionStackBytes = 256;

    /// <summary>Bytes of a TSS as the processor knows it.</summary>
    internal const int TssBytes = 0x68;

    /// <summary>The selector of code at CPL 0.</summary>
    internal const ushort KernelCode = 0x08;

    private const ulong Gdt = 0x1000;
    private const ulong Tss = 0x2000;
    private const ulong TssStride = 128;
    private const ulong ExceptionStacks = 0x6000;
    private const ulong BootInfo = 0x1_0000;
    private const ulong BootInfoBytes = 256;
    private const ulong Pml4 = 0x2_0000;
    private const ulong Pdpt = 0x2_1000;
    private const ulong PageDirectories = 0x2_2000;
    private const ulong Stacks = 0xB_0000;

    private const ushort KernelData = 0x10;
    private const ushort UserData = 0x1B;
    private const ushort UserCode = 0x23;
    private const ushort TssSelector = 0x28;
    private const int GdtBytes = 0x38;

    private const ulong PagePresentWritableUser = 7;
    private const ulong PageLarge = 1 << 7;
    private const ulong AccessedDirty = 0x60;

    private const ulong Cr0 = 0x8005_0033; // PG WP NE ET MP PE, and AM
    private const ulong Cr4 = 0x0004_0620; // OSXSAVE OSXMMEXCPT OSFXSR PAE
    private const ulong Efer = 0xD00;      // NXE LMA LME
    private const ulong RflagsIopl3 = 0x3002;
    private const ulong X87SseAvx = 7;

    /// <summary>Offsets in struct kvm_cpuid2 and struct kvm_cpuid_entry2.</summary>
    private const int CpuidHeader = 8;
    private const int CpuidEntry = 40;
    private const int CpuidEax = 12;
    private const int CpuidEbx = 16;
    private const int CpuidEdx = 24;

    private static ReadOnlySpan<byte> InvalidInstruction => [0x0F, 0x0B];

    /// <summary>Writes tables and boot info into a guest's memory.</summary>
    /// <param name="memory">The memory.</param>
    /// <param name="configuration">What the boot info tells.</param>
    /// <param name="freeMemory">The first guest physical address behind the image.</param>
    /// <param name="mapped">
    /// The first guest physical address that the page tables don't map, at most <see cref="MostMemory"/>; 0 for the memory's end. Above the memory for a
    /// guest that has other memory too.
    /// </param>
    /// <exception cref="ArgumentOutOfRangeException">More is to be mapped than the page tables have room for.</exception>
    public static void Write(GuestMemory memory, MachineConfiguration configuration, ulong freeMemory, ulong mapped = 0)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(mapped, MostMemory);
        WritePageTables(memory, mapped == 0 ? memory.Size : mapped);
        WriteGdt(memory);
        ExceptionTables.Write(memory, configuration.VcpuCount);
        memory.Write(0, InvalidInstruction);
        Span<byte> info = stackalloc byte[(int)BootInfoBytes];
        for (int vcpu = 0; vcpu < configuration.VcpuCount; vcpu++)
        {
            info.Clear();
            BinaryPrimitives.WriteUInt64LittleEndian(info, BootInfoMagic);
            BinaryPrimitives.WriteUInt32LittleEndian(info[InfoVersion..], BootInfoVersion);
            BinaryPrimitives.WriteUInt64LittleEndian(info[InfoMemorySize..], memory.Size);
            BinaryPrimitives.WriteInt32LittleEndian(info[InfoVcpuIndex..], vcpu);
            BinaryPrimitives.WriteInt32LittleEndian(info[InfoVcpuCount..], configuration.VcpuCount);
            BinaryPrimitives.WriteUInt64LittleEndian(info[InfoSeed..], configuration.Seed);
            BinaryPrimitives.WriteUInt64LittleEndian(info[InfoPasses..], configuration.Passes);
            BinaryPrimitives.WriteUInt64LittleEndian(info[InfoFreeMemory..], freeMemory);
            memory.Write(BootInfo + ((ulong)vcpu * BootInfoBytes), info);
        }
    }

    /// <summary>Puts a vCPU into the state that a guest starts in: 64-bit mode, RDI its boot info, RSP its stack.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="cpuid">The CPUID leaves that it shows.</param>
    /// <param name="privilege">The privilege level.</param>
    /// <param name="entry">Where it starts.</param>
    /// <exception cref="LinuxException">KVM refused.</exception>
    public static void Prepare(VirtualCpu vcpu, byte[] cpuid, GuestPrivilege privilege, ulong entry)
    {
        byte dpl = privilege == GuestPrivilege.User ? (byte)3 : (byte)0;
        SetApicId(cpuid, (uint)vcpu.Id);
        vcpu.SetCpuid(cpuid);
        VcpuSystemRegisters system = vcpu.SystemRegisters;
        system.Cr0 = Cr0;
        system.Cr3 = Pml4;
        system.Cr4 = Cr4;
        system.Efer = Efer;
        ushort code = dpl == 0 ? KernelCode : UserCode;
        system.Cs = new VcpuSegment { Limit = uint.MaxValue, Selector = code, Type = 11, Present = 1, Dpl = dpl, S = 1, L = 1, G = 1 };
        VcpuSegment data = new() { Limit = uint.MaxValue, Selector = dpl == 0 ? KernelData : UserData, Type = 3, Present = 1, Dpl = dpl, S = 1, Db = 1, G = 1 };
        (system.Ds, system.Es, system.Fs, system.Gs, system.Ss) = (data, data, data, data, data);
        system.Tr = new VcpuSegment { Base = TssOf(vcpu.Id), Limit = TssBytes - 1, Selector = TssSelector, Type = 11, Present = 1 };
        system.Ldt = new VcpuSegment { Unusable = 1 };
        system.Gdt = new VcpuDescriptorTable { Base = Gdt, Limit = GdtBytes - 1 };
        system.Idt = new VcpuDescriptorTable { Base = Idt, Limit = ExceptionTables.IdtBytes - 1 };
        vcpu.SystemRegisters = system;
        vcpu.Xcr0 = SupportedXcr0(cpuid) & X87SseAvx;
        vcpu.Registers = new VcpuRegisters
        {
            Rip = entry,
            Rflags = RflagsIopl3,
            Rdi = BootInfo + ((ulong)vcpu.Id * BootInfoBytes),
            Rsp = Stacks + (((ulong)vcpu.Id + 1) * Page.Size) - sizeof(ulong),
        };
    }

    /// <summary>Where the TSS of a vCPU lies.</summary>
    internal static ulong TssOf(int vcpu) => Tss + ((ulong)vcpu * TssStride);

    /// <summary>Where the lowest byte of a vCPU's exception stack lies.</summary>
    internal static ulong ExceptionStackOf(int vcpu) => ExceptionStacks + ((ulong)vcpu * ExceptionStackBytes);

    /// <summary>Puts a vCPU's number where CPUID tells it; KVM leaves there what the host's processor says.</summary>
    private static void SetApicId(Span<byte> cpuid, uint id)
    {
        for (int at = CpuidHeader; at < cpuid.Length; at += CpuidEntry)
        {
            Span<byte> leaf = cpuid[at..];
            switch (BinaryPrimitives.ReadUInt32LittleEndian(leaf))
            {
                case 0x01:
                    leaf[CpuidEbx + 3] = (byte)id;
                    break;
                case 0x0B or 0x1F:
                    BinaryPrimitives.WriteUInt32LittleEndian(leaf[CpuidEdx..], id);
                    break;
            }
        }
    }

    /// <summary>CPUID leaf 0xD, subleaf 0: EAX and EDX are the bits that XCR0 may have.</summary>
    private static ulong SupportedXcr0(ReadOnlySpan<byte> cpuid)
    {
        for (int at = CpuidHeader; at < cpuid.Length; at += CpuidEntry)
        {
            ReadOnlySpan<byte> leaf = cpuid[at..];
            if (BinaryPrimitives.ReadUInt32LittleEndian(leaf) == 0xD && BinaryPrimitives.ReadUInt32LittleEndian(leaf[4..]) == 0)
            {
                return BinaryPrimitives.ReadUInt32LittleEndian(leaf[CpuidEax..]) | ((ulong)BinaryPrimitives.ReadUInt32LittleEndian(leaf[CpuidEdx..]) << 32);
            }
        }

        return 1;
    }

    private static void WritePageTables(GuestMemory memory, ulong mapped)
    {
        ulong gibibytes = (mapped + (1UL << 30) - 1) >> 30;
        Span<byte> table = stackalloc byte[Page.Size];
        table.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(table, Pdpt | PagePresentWritableUser | AccessedDirty);
        memory.Write(Pml4, table);
        table.Clear();
        for (ulong i = 0; i < gibibytes; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(table[(int)(i * 8)..], (PageDirectories + (i * Page.Size)) | PagePresentWritableUser | AccessedDirty);
        }

        memory.Write(Pdpt, table);
        for (ulong i = 0; i < gibibytes; i++)
        {
            table.Clear();
            for (ulong k = 0; k < 512 && (i << 30) + (k << 21) < mapped; k++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(table[(int)(k * 8)..], ((i << 30) + (k << 21)) | PagePresentWritableUser | PageLarge | AccessedDirty);
            }

            memory.Write(PageDirectories + (i * Page.Size), table);
        }
    }

    private static void WriteGdt(GuestMemory memory)
    {
        const ulong Code = 0x00AF_9B00_0000_FFFF;
        const ulong Data = 0x00CF_9300_0000_FFFF;
        const ulong Dpl3 = 3UL << 45;
        Span<byte> gdt = stackalloc byte[GdtBytes];
        gdt.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[KernelCode..], Code);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[KernelData..], Data);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[(UserData & ~3)..], Data | Dpl3);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[(UserCode & ~3)..], Code | Dpl3);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[TssSelector..], 0x0000_8B00_0000_0067 | (Tss << 16));
        memory.Write(Gdt, gdt);
    }
}
