using System.Buffers.Binary;
using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Where what the VMM prepares lies in the guest's first MiB, and the state that a vCPU starts in.</summary>
/// <remarks>
/// <code>
/// 0x01000            GDT
/// 0x02000            TSS
/// 0x10000 + 256 * n  boot info of vCPU n
/// 0x20000            PML4, then the PDPT, then a page directory per GiB: all memory identity-mapped by 2 MiB pages
/// 0xB0000 + 4096 * n stack of vCPU n, empty at 0xB0000 + 4096 * (n + 1)
/// 0x100000           a flat guest, and the built-in ones
/// </code>
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

    private const ulong Gdt = 0x1000;
    private const ulong Tss = 0x2000;
    private const ulong BootInfo = 0x1_0000;
    private const ulong BootInfoBytes = 256;
    private const ulong Pml4 = 0x2_0000;
    private const ulong Pdpt = 0x2_1000;
    private const ulong PageDirectories = 0x2_2000;
    private const ulong Stacks = 0xB_0000;

    private const ushort CodeSelector = 0x08;
    private const ushort DataSelector = 0x10;
    private const ushort TssSelector = 0x18;

    private const ulong PagePresentWritableUser = 7;
    private const ulong PageLarge = 1 << 7;
    private const ulong AccessedDirty = 0x60;

    private const ulong Cr0 = 0x8005_0033; // PG WP NE ET MP PE, and AM
    private const ulong Cr4 = 0x0004_0620; // OSXSAVE OSXMMEXCPT OSFXSR PAE
    private const ulong Efer = 0xD00;      // NXE LMA LME
    private const ulong RflagsIopl3 = 0x3002;
    private const ulong X87SseAvx = 7;

    /// <summary>Writes tables and boot info into a guest's memory.</summary>
    /// <param name="memory">The memory.</param>
    /// <param name="configuration">What the boot info tells.</param>
    /// <param name="freeMemory">The first guest physical address behind the image.</param>
    public static void Write(GuestMemory memory, MachineConfiguration configuration, ulong freeMemory)
    {
        WritePageTables(memory);
        WriteGdt(memory, configuration.Privilege);
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
    internal static void Prepare(VirtualCpu vcpu, byte[] cpuid, GuestPrivilege privilege, ulong entry)
    {
        byte dpl = privilege == GuestPrivilege.User ? (byte)3 : (byte)0;
        vcpu.SetCpuid(cpuid);
        VcpuSystemRegisters system = vcpu.SystemRegisters;
        system.Cr0 = Cr0;
        system.Cr3 = Pml4;
        system.Cr4 = Cr4;
        system.Efer = Efer;
        system.Cs = new VcpuSegment { Limit = uint.MaxValue, Selector = (ushort)(CodeSelector | dpl), Type = 11, Present = 1, Dpl = dpl, S = 1, L = 1, G = 1 };
        VcpuSegment data = new() { Limit = uint.MaxValue, Selector = (ushort)(DataSelector | dpl), Type = 3, Present = 1, Dpl = dpl, S = 1, Db = 1, G = 1 };
        (system.Ds, system.Es, system.Fs, system.Gs, system.Ss) = (data, data, data, data, data);
        system.Tr = new VcpuSegment { Base = Tss, Limit = 0x67, Selector = TssSelector, Type = 11, Present = 1 };
        system.Ldt = new VcpuSegment { Unusable = 1 };
        system.Gdt = new VcpuDescriptorTable { Base = Gdt, Limit = 0x27 };

        // No handlers: an exception shuts the vCPU down, and the VMM reports where.
        system.Idt = default;
        vcpu.SystemRegisters = system;
        vcpu.Xcr0 = SupportedXcr0(cpuid) & X87SseAvx;
        vcpu.Registers = new VcpuRegisters
        {
            Rip = entry,
            Rflags = RflagsIopl3,
            Rdi = BootInfo + ((ulong)vcpu.Id * BootInfoBytes),
            Rsp = Stacks + (((ulong)vcpu.Id + 1) * Page.Size),
        };
    }

    /// <summary>CPUID leaf 0xD, subleaf 0: EAX and EDX are the bits that XCR0 may have.</summary>
    private static ulong SupportedXcr0(ReadOnlySpan<byte> cpuid)
    {
        const int Header = 8;
        const int Entry = 40;
        for (int at = Header; at < cpuid.Length; at += Entry)
        {
            ReadOnlySpan<byte> leaf = cpuid[at..];
            if (BinaryPrimitives.ReadUInt32LittleEndian(leaf) == 0xD && BinaryPrimitives.ReadUInt32LittleEndian(leaf[4..]) == 0)
            {
                return BinaryPrimitives.ReadUInt32LittleEndian(leaf[12..]) | ((ulong)BinaryPrimitives.ReadUInt32LittleEndian(leaf[24..]) << 32);
            }
        }

        return 1;
    }

    private static void WritePageTables(GuestMemory memory)
    {
        ulong gibibytes = (memory.Size + (1UL << 30) - 1) >> 30;
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
            for (ulong k = 0; k < 512 && (i << 30) + (k << 21) < memory.Size; k++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(table[(int)(k * 8)..], ((i << 30) + (k << 21)) | PagePresentWritableUser | PageLarge | AccessedDirty);
            }

            memory.Write(PageDirectories + (i * Page.Size), table);
        }
    }

    private static void WriteGdt(GuestMemory memory, GuestPrivilege privilege)
    {
        ulong dpl = privilege == GuestPrivilege.User ? 3UL << 45 : 0;
        Span<byte> gdt = stackalloc byte[0x28];
        gdt.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[CodeSelector..], 0x00AF_9B00_0000_FFFF | dpl);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[DataSelector..], 0x00CF_9300_0000_FFFF | dpl);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[TssSelector..], 0x0000_8B00_0000_0067 | ((Tss & 0xFF_FFFF) << 16));
        memory.Write(Gdt, gdt);
        Span<byte> tss = stackalloc byte[0x68];
        tss.Clear();
        memory.Write(Tss, tss);
    }
}
