using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>
/// All that a vCPU is, beside memory: CPUID, registers, FPU and vector registers (XSAVE), XCRs, MSRs by the kernel's own list, debug registers,
/// pending events and MP state, its local APIC and the virtual machine's
/// clock where the virtual machine has interrupt controllers in the kernel.
/// </summary>
/// <remarks>
/// Its parts are the kernel's own structures. The binary form is little-endian: magic, version, number of sections, then for each its number, its length
/// and its bytes.
/// </remarks>
public sealed class VcpuState
{
    private const uint Magic = 0x5543_5650; // "PVCU"
    private const ushort Version = 1;
    private const int HeaderBytes = 8;
    private const int SectionHeaderBytes = 8;
    private const int MostSectionBytes = 1 << 20;
    private const int ClockBytes = sizeof(ulong);

    private readonly SortedDictionary<VcpuStateSection, byte[]> _sections = [];

    private VcpuState()
    {
    }

    /// <summary>The parts, each the kernel's own structure.</summary>
    public IReadOnlyDictionary<VcpuStateSection, byte[]> Sections => _sections;

    /// <summary>The general registers.</summary>
    public VcpuRegisters Registers => MemoryMarshal.Read<VcpuRegisters>(_sections[VcpuStateSection.Registers]);

    /// <summary>Reads the state of a vCPU that does not run.</summary>
    /// <param name="virtualMachine">The vCPU's virtual machine.</param>
    /// <param name="vcpu">The vCPU; its own thread calls this, or it has none yet.</param>
    /// <returns>The state.</returns>
    /// <exception cref="LinuxException">A part can't be read.</exception>
    public static VcpuState Capture(VirtualMachine virtualMachine, VirtualCpu vcpu)
    {
        var state = new VcpuState();
        state._sections[VcpuStateSection.Cpuid] = ReadCpuid(vcpu);
        state._sections[VcpuStateSection.MpState] = Read(vcpu, Interop.KVM_GET_MP_STATE, Interop.MpStateBytes, "MP state");
        state._sections[VcpuStateSection.Registers] = Read(vcpu, Interop.KVM_GET_REGS, Interop.RegistersBytes, "registers");
        state._sections[VcpuStateSection.SystemRegisters] = Read(vcpu, Interop.KVM_GET_SREGS, Interop.SystemRegistersBytes, "system registers");
        state._sections[VcpuStateSection.Xcrs] = Read(vcpu, Interop.KVM_GET_XCRS, Interop.XcrsBytes, "XCRs");
        var xsave = new byte[vcpu.XsaveBytes];
        vcpu.ReadXsave(xsave);
        state._sections[VcpuStateSection.Xsave] = xsave;
        state._sections[VcpuStateSection.Msrs] = ReadMsrs(vcpu, virtualMachine.Kvm.GetMsrIndexList());
        state._sections[VcpuStateSection.DebugRegisters] = Read(vcpu, Interop.KVM_GET_DEBUGREGS, Interop.DebugRegistersBytes, "debug registers");
        state._sections[VcpuStateSection.Events] = Read(vcpu, Interop.KVM_GET_VCPU_EVENTS, Interop.EventsBytes, "events");
        if (virtualMachine.HasIrqchip)
        {
            state._sections[VcpuStateSection.Lapic] = vcpu.GetLapic();
            var clock = new byte[ClockBytes];
            BinaryPrimitives.WriteUInt64LittleEndian(clock, virtualMachine.GetClock().Nanoseconds);
            state._sections[VcpuStateSection.Clock] = clock;
        }

        return state;
    }

    /// <summary>Gives the state to a vCPU that has not run.</summary>
    /// <param name="virtualMachine">The vCPU's virtual machine.</param>
    /// <param name="vcpu">The vCPU; its own thread calls this, or it has none yet.</param>
    /// <exception cref="LinuxException">The kernel refused a part; it is named.</exception>
    /// <exception cref="NotSupportedException">
    /// An MSR can't have the value here; it is named. Or one of the two virtual machines has interrupt controllers in the kernel and the other has not.
    /// </exception>
    public void Restore(VirtualMachine virtualMachine, VirtualCpu vcpu)
    {
        bool hasLapic = _sections.ContainsKey(VcpuStateSection.Lapic);
        if (hasLapic != virtualMachine.HasIrqchip)
        {
            throw new NotSupportedException($"The state of vCPU {vcpu.Id} {(hasLapic ? "has a" : "has no")} local APIC; this virtual machine {(hasLapic ? "has none" : "needs one")}.");
        }

        // The order matters: what the processor is, before its registers; events and the registers that they change, last.
        Write(vcpu, Interop.KVM_SET_CPUID2, VcpuStateSection.Cpuid, "CPUID leaves");
        Write(vcpu, Interop.KVM_SET_SREGS, VcpuStateSection.SystemRegisters, "system registers");
        Write(vcpu, Interop.KVM_SET_XCRS, VcpuStateSection.Xcrs, "XCRs");

        // The kernel reads as much as its own area is long.
        byte[] saved = _sections[VcpuStateSection.Xsave];
        var xsave = new byte[Math.Max(saved.Length, vcpu.XsaveBytes)];
        saved.CopyTo(xsave, 0);
        vcpu.SetRaw(Interop.KVM_SET_XSAVE, xsave, "XSAVE area");
        if (hasLapic)
        {
            // Before the MSRs: the TSC deadline is kept only where the APIC's timer is in that mode.
            vcpu.SetLapic(_sections[VcpuStateSection.Lapic]);
        }

        WriteMsrs(vcpu);
        Write(vcpu, Interop.KVM_SET_DEBUGREGS, VcpuStateSection.DebugRegisters, "debug registers");
        Write(vcpu, Interop.KVM_SET_VCPU_EVENTS, VcpuStateSection.Events, "events");
        Write(vcpu, Interop.KVM_SET_MP_STATE, VcpuStateSection.MpState, "MP state");
        Write(vcpu, Interop.KVM_SET_REGS, VcpuStateSection.Registers, "registers");
        if (hasLapic)
        {
            ulong nanoseconds = BinaryPrimitives.ReadUInt64LittleEndian(_sections[VcpuStateSection.Clock]);
            virtualMachine.SetClock(new MachineClock(nanoseconds, ClockFlags.None, 0, 0));
        }
    }

    /// <summary>The binary form.</summary>
    /// <returns>Bytes that <see cref="Deserialize"/> takes.</returns>
    public byte[] Serialize()
    {
        var bytes = new byte[HeaderBytes + _sections.Values.Sum(section => SectionHeaderBytes + section.Length)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(4), Version);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(6), (ushort)_sections.Count);
        int at = HeaderBytes;
        foreach ((VcpuStateSection section, byte[] content) in _sections)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(at), (uint)section);
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(at + 4), (uint)content.Length);
            content.CopyTo(bytes, at + SectionHeaderBytes);
            at += SectionHeaderBytes + content.Length;
        }

        return bytes;
    }

    /// <summary>Reads the binary form, checking every length and number in it.</summary>
    /// <param name="bytes">What <see cref="Serialize"/> made, or anything else.</param>
    /// <returns>The state.</returns>
    /// <exception cref="InvalidDataException">It is not a vCPU state of this version; the message says where.</exception>
    public static VcpuState Deserialize(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < HeaderBytes || BinaryPrimitives.ReadUInt32LittleEndian(bytes) != Magic)
        {
            throw new InvalidDataException("This is not a vCPU state.");
        }

        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]);
        if (version != Version)
        {
            throw new InvalidDataException($"The vCPU state is of version {version}; this is version {Version}.");
        }

        int sections = BinaryPrimitives.ReadUInt16LittleEndian(bytes[6..]);
        var state = new VcpuState();
        ReadOnlySpan<byte> rest = bytes[HeaderBytes..];
        for (int i = 0; i < sections; i++)
        {
            rest = state.TakeSection(rest);
        }

        if (!rest.IsEmpty)
        {
            throw new InvalidDataException($"The vCPU state has {rest.Length} bytes behind its {sections} sections.");
        }

        bool withIrqchip = state._sections.ContainsKey(VcpuStateSection.Lapic) || state._sections.ContainsKey(VcpuStateSection.Clock);
        foreach (VcpuStateSection section in Enum.GetValues<VcpuStateSection>())
        {
            bool optional = !withIrqchip && section is (VcpuStateSection.Lapic or VcpuStateSection.Clock);
            if (!optional && !state._sections.ContainsKey(section))
            {
                throw new InvalidDataException($"The vCPU state lacks the section {section}.");
            }
        }

        return state;
    }

    private static byte[] Read(VirtualCpu vcpu, nuint request, int length, string what)
    {
        var structure = new byte[length];
        vcpu.GetRaw(request, structure, what);
        return structure;
    }

    private static byte[] ReadCpuid(VirtualCpu vcpu)
    {
        const int MostEntries = 512;
        var cpuid = new byte[Interop.CpuidHeaderBytes + (MostEntries * Interop.CpuidEntryBytes)];
        BinaryPrimitives.WriteUInt32LittleEndian(cpuid, MostEntries);
        vcpu.GetRaw(Interop.KVM_GET_CPUID2, cpuid, "CPUID leaves");

        // Older kernels (6.1) fill the entries and leave the count at what was asked for. What they didn't fill is zero, which no leaf is.
        int entries = BinaryPrimitives.ReadInt32LittleEndian(cpuid);
        while (entries > 0 && !cpuid.AsSpan(Interop.CpuidHeaderBytes + ((entries - 1) * Interop.CpuidEntryBytes), Interop.CpuidEntryBytes).ContainsAnyExcept((byte)0))
        {
            entries--;
        }

        BinaryPrimitives.WriteInt32LittleEndian(cpuid, entries);
        return cpuid[..(Interop.CpuidHeaderBytes + (entries * Interop.CpuidEntryBytes))];
    }

    /// <summary>Reads the MSRs of a list; the kernel stops at one that it can't read, which is left out.</summary>
    private static byte[] ReadMsrs(VirtualCpu vcpu, ReadOnlySpan<uint> indices)
    {
        var read = new MemoryStream();
        var entry = new byte[Interop.MsrsHeaderBytes + Interop.MsrEntryBytes];
        uint count = 0;
        read.Write(new byte[Interop.MsrsHeaderBytes]);
        foreach (uint index in indices)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(entry, 1);
            BinaryPrimitives.WriteUInt32LittleEndian(entry.AsSpan(Interop.MsrsHeaderBytes), index);
            if (Interop.Ioctl(vcpu.Descriptor, Interop.KVM_GET_MSRS, entry) == 1)
            {
                read.Write(entry.AsSpan(Interop.MsrsHeaderBytes));
                count++;
            }
        }

        byte[] msrs = read.ToArray();
        BinaryPrimitives.WriteUInt32LittleEndian(msrs, count);
        return msrs;
    }

    private static void CheckLength(VcpuStateSection section, ReadOnlySpan<byte> content)
    {
        bool right = section switch
        {
            VcpuStateSection.Cpuid => IsCounted(content, Interop.CpuidHeaderBytes, Interop.CpuidEntryBytes),
            VcpuStateSection.Msrs => IsCounted(content, Interop.MsrsHeaderBytes, Interop.MsrEntryBytes),
            VcpuStateSection.SystemRegisters => content.Length == Interop.SystemRegistersBytes,
            VcpuStateSection.Xcrs => content.Length == Interop.XcrsBytes,
            VcpuStateSection.Xsave => content.Length >= Interop.XsaveBytes,
            VcpuStateSection.DebugRegisters => content.Length == Interop.DebugRegistersBytes,
            VcpuStateSection.Events => content.Length == Interop.EventsBytes,
            VcpuStateSection.MpState => content.Length == Interop.MpStateBytes,
            VcpuStateSection.Registers => content.Length == Interop.RegistersBytes,
            VcpuStateSection.Lapic => content.Length == Interop.LapicBytes,
            VcpuStateSection.Clock => content.Length == ClockBytes,
            _ => throw new UnreachableException(),
        };
        if (!right)
        {
            throw new InvalidDataException($"The section {section} of the vCPU state has {content.Length} bytes, which is not its size.");
        }
    }

    private static bool IsCounted(ReadOnlySpan<byte> content, int header, int entry) =>
        content.Length >= header && content.Length - header == BinaryPrimitives.ReadUInt32LittleEndian(content) * (long)entry;

    private ReadOnlySpan<byte> TakeSection(ReadOnlySpan<byte> rest)
    {
        if (rest.Length < SectionHeaderBytes)
        {
            throw new InvalidDataException("The vCPU state ends within a section's header.");
        }

        var section = (VcpuStateSection)BinaryPrimitives.ReadUInt32LittleEndian(rest);
        if (!Enum.IsDefined(section))
        {
            throw new InvalidDataException($"The vCPU state has a section {(uint)section} that is unknown here.");
        }

        uint length = BinaryPrimitives.ReadUInt32LittleEndian(rest[4..]);
        if (length > MostSectionBytes || length > rest.Length - SectionHeaderBytes)
        {
            throw new InvalidDataException($"The section {section} of the vCPU state states {length} bytes; {rest.Length - SectionHeaderBytes} follow.");
        }

        ReadOnlySpan<byte> content = rest.Slice(SectionHeaderBytes, (int)length);
        CheckLength(section, content);
        return _sections.TryAdd(section, content.ToArray())
            ? rest[(SectionHeaderBytes + (int)length)..]
            : throw new InvalidDataException($"The vCPU state has the section {section} twice.");
    }

    private void Write(VirtualCpu vcpu, nuint request, VcpuStateSection section, string what) => vcpu.SetRaw(request, _sections[section], what);

    private void WriteMsrs(VirtualCpu vcpu)
    {
        ReadOnlySpan<byte> msrs = _sections[VcpuStateSection.Msrs];
        var entry = new byte[Interop.MsrsHeaderBytes + Interop.MsrEntryBytes];
        for (int at = Interop.MsrsHeaderBytes; at < msrs.Length; at += Interop.MsrEntryBytes)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(entry, 1);
            msrs.Slice(at, Interop.MsrEntryBytes).CopyTo(entry.AsSpan(Interop.MsrsHeaderBytes));
            if (Interop.Ioctl(vcpu.Descriptor, Interop.KVM_SET_MSRS, entry) == 1)
            {
                continue;
            }

            // A read-only MSR can't be set, and needn't be where it has the value already.
            uint index = BinaryPrimitives.ReadUInt32LittleEndian(entry.AsSpan(Interop.MsrsHeaderBytes));
            ulong wanted = BinaryPrimitives.ReadUInt64LittleEndian(entry.AsSpan(Interop.MsrsHeaderBytes + Interop.MsrEntryData));
            bool readable = Interop.Ioctl(vcpu.Descriptor, Interop.KVM_GET_MSRS, entry) == 1;
            ulong found = BinaryPrimitives.ReadUInt64LittleEndian(entry.AsSpan(Interop.MsrsHeaderBytes + Interop.MsrEntryData));
            if (!readable || found != wanted)
            {
                throw new NotSupportedException(
                    $"MSR 0x{index:x} of vCPU {vcpu.Id} can't be set to 0x{wanted:x} on this host{(readable ? $", where it is 0x{found:x}" : string.Empty)}.");
            }
        }
    }
}
