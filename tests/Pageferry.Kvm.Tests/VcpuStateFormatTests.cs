using System.Buffers.Binary;
using CsCheck;

namespace Pageferry.Kvm.Tests;

/// <summary>The binary form of a vCPU's state comes from a peer: whatever the bytes are, they are a state or are refused with one exception.</summary>
[NeedsKvm]
public class VcpuStateFormatTests
{
    private const uint Magic = 0x5543_5650;
    private const int HeaderBytes = 8;
    private const int SectionHeaderBytes = 8;

    private static readonly byte[] s_real = RealState(irqchip: false);
    private static readonly byte[] s_realWithLapic = RealState(irqchip: true);

    private static readonly Gen<byte[]> s_xsave = Gen.Int[0, 8].SelectMany(more => Gen.Byte.Array[Interop.XsaveBytes + (64 * more)]);

    /// <summary>Any contents of the right lengths.</summary>
    private static readonly Gen<(VcpuStateSection Number, byte[] Content)[]> s_sections = Gen.Select(
        Gen.Select(Counted(Interop.CpuidHeaderBytes, Interop.CpuidEntryBytes), Counted(Interop.MsrsHeaderBytes, Interop.MsrEntryBytes), s_xsave),
        Gen.Select(Gen.Byte.Array[Interop.SystemRegistersBytes], Gen.Byte.Array[Interop.XcrsBytes], Gen.Byte.Array[Interop.DebugRegistersBytes]),
        Gen.Select(Gen.Byte.Array[Interop.EventsBytes], Gen.Byte.Array[Interop.MpStateBytes], Gen.Byte.Array[Interop.RegistersBytes]),
        Gen.Select(Gen.Bool, Gen.Byte.Array[Interop.LapicBytes], Gen.Byte.Array[sizeof(ulong)]),
        ((byte[] Cpuid, byte[] Msrs, byte[] Xsave) a, (byte[] System, byte[] Xcrs, byte[] Debug) b, (byte[] Events, byte[] Mp, byte[] Registers) c, (bool HasIrqchip, byte[] Lapic, byte[] Clock) d) =>
        {
            List<(VcpuStateSection, byte[])> sections =
            [
                (VcpuStateSection.Cpuid, a.Cpuid), (VcpuStateSection.SystemRegisters, b.System), (VcpuStateSection.Xcrs, b.Xcrs),
                (VcpuStateSection.Xsave, a.Xsave), (VcpuStateSection.Msrs, a.Msrs), (VcpuStateSection.DebugRegisters, b.Debug),
                (VcpuStateSection.Events, c.Events), (VcpuStateSection.MpState, c.Mp), (VcpuStateSection.Registers, c.Registers),
            ];
            if (d.HasIrqchip)
            {
                sections.AddRange([(VcpuStateSection.Lapic, d.Lapic), (VcpuStateSection.Clock, d.Clock)]);
            }

            return sections.ToArray();
        });

    [Fact]
    public void Any_state_survives_its_binary_form_in_any_order() =>
        Gen.Select(s_sections, Gen.Int).Sample((sections, seed) =>
        {
            (VcpuStateSection Number, byte[] Content)[] shuffled = [.. sections];
            new Random(seed).Shuffle(shuffled);
            VcpuState state = VcpuState.Deserialize(Write(shuffled));
            Assert.Equal(sections.Select(section => section.Number), state.Sections.Keys);
            Assert.All(sections, section => Assert.Equal(section.Content, state.Sections[section.Number]));
            Assert.Equal(Write(sections), state.Serialize());
        });

    [Fact]
    public void Real_states_survive_their_binary_form()
    {
        Assert.Equal(s_real, VcpuState.Deserialize(s_real).Serialize());
        Assert.Equal(s_realWithLapic, VcpuState.Deserialize(s_realWithLapic).Serialize());
    }

    [Fact]
    public void Any_bytes_are_refused() => Gen.Byte.Array[0, 4096].Sample(bytes => _ = TakenOrRefused(bytes));

    [Fact]
    public void Any_bytes_behind_a_right_header_are_refused() =>
        Gen.Select(Gen.Byte.Array[0, 4096], Gen.UShort, (rest, count) => (byte[])[.. Header(1, count), .. rest]).Sample(bytes => _ = TakenOrRefused(bytes));

    [Fact]
    public void Any_sections_are_taken_or_refused() =>
        Gen.Select(Gen.UInt[0, 13], Gen.UInt, Gen.Byte.Array[0, 600], (number, length, content) => (Number: number, Length: length, Content: content)).Array[0, 12]
            .Select(Gen.Bool, (sections, lies) => sections.Aggregate(Header(1, (ushort)sections.Length), (bytes, section) =>
                [.. bytes, .. SectionHeader(section.Number, lies ? section.Length : (uint)section.Content.Length), .. section.Content]))
            .Sample(bytes => _ = TakenOrRefused(bytes));

    [Fact]
    public void Any_changed_byte_gives_a_state_or_is_refused() =>
        Gen.Select(Gen.Int[0, s_realWithLapic.Length - 1], Gen.Byte).Sample(
            (at, value) =>
            {
                byte[] changed = [.. s_realWithLapic];
                changed[at] = value;
                VcpuState? state = TakenOrRefused(changed);
                Assert.True(state is null || state.Serialize().AsSpan().SequenceEqual(changed));
            },
            iter: 2_000);

    [Fact]
    public void Every_change_of_a_byte_that_tells_a_length_or_number_gives_a_state_or_is_refused()
    {
        int at = HeaderBytes;
        List<int> places = [.. Enumerable.Range(0, HeaderBytes)];
        while (at < s_realWithLapic.Length)
        {
            // The section's header and the count that some contents start with.
            places.AddRange(Enumerable.Range(at, SectionHeaderBytes + 4));
            at += SectionHeaderBytes + BinaryPrimitives.ReadInt32LittleEndian(s_realWithLapic.AsSpan(at + 4));
        }

        byte[] changed = [.. s_realWithLapic];
        foreach (int place in places)
        {
            for (int bit = 0; bit < 8; bit++)
            {
                changed[place] ^= (byte)(1 << bit);
                _ = TakenOrRefused(changed);
                changed[place] ^= (byte)(1 << bit);
            }
        }
    }

    [Fact]
    public void Every_truncation_is_refused()
    {
        for (int length = 0; length < s_realWithLapic.Length; length++)
        {
            Assert.Null(TakenOrRefused(s_realWithLapic.AsSpan(0, length)));
        }
    }

    [Fact]
    public void Bytes_behind_the_last_section_are_refused() => Refused([.. s_real, 0], "1 bytes behind its 9 sections");

    [Fact]
    public void An_unknown_section_is_refused_by_its_number() =>
        Refused([.. Header(1, 1), .. SectionHeader(4711, 0)], "a section 4711 that is unknown here");

    [Fact]
    public void An_unknown_section_is_refused_whatever_its_length() =>
        Gen.Select(Gen.UInt[12, uint.MaxValue], Gen.UInt).Sample((number, length) =>
            Refused([.. Header(1, 1), .. SectionHeader(number, length)], $"a section {number} that is unknown here"));

    [Fact]
    public void Another_version_is_refused_naming_both() => Gen.UShort.Where(version => version != 1).Sample(version =>
    {
        byte[] bytes = [.. s_real];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(4), version);
        Refused(bytes, $"of version {version}; this is version 1");
    });

    [Fact]
    public void A_missing_section_is_named()
    {
        foreach (VcpuStateSection missing in Enum.GetValues<VcpuStateSection>())
        {
            VcpuState whole = VcpuState.Deserialize(s_realWithLapic);
            Refused(Write([.. whole.Sections.Where(pair => pair.Key != missing).Select(pair => (pair.Key, pair.Value))]), $"lacks the section {missing}");
        }
    }

    [Fact]
    public void A_section_twice_is_refused() =>
        Refused(
            [.. Header(1, 2), .. SectionHeader(8, 4), 0, 0, 0, 0, .. SectionHeader(8, 4), 0, 0, 0, 0],
            $"the section {VcpuStateSection.MpState} twice");

    [Fact]
    public void A_length_that_lies_costs_no_memory()
    {
        byte[] bytes = [.. Header(1, ushort.MaxValue), .. SectionHeader((uint)VcpuStateSection.Xsave, int.MaxValue)];
        _ = TakenOrRefused(bytes);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Assert.Null(TakenOrRefused(bytes));
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 64 * 1024);
    }

    /// <summary>The state, or null if it was refused with the documented exception. Any other exception, or memory beyond the bytes' own size, fails.</summary>
    private static VcpuState? TakenOrRefused(ReadOnlySpan<byte> bytes)
    {
        const int Overhead = 64 * 1024;
        long before = GC.GetAllocatedBytesForCurrentThread();
        VcpuState? state = null;
        try
        {
            state = VcpuState.Deserialize(bytes);
        }
        catch (InvalidDataException failure)
        {
            Assert.NotEmpty(failure.Message);
        }

        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, (2 * bytes.Length) + Overhead);
        return state;
    }

    private static void Refused(byte[] bytes, string because) =>
        Assert.Contains(because, Assert.Throws<InvalidDataException>(() => VcpuState.Deserialize(bytes)).Message, StringComparison.Ordinal);

    private static Gen<byte[]> Counted(int header, int entry) =>
        Gen.Int[0, 50].SelectMany(count => Gen.Byte.Array[header + (count * entry)].Select(bytes =>
        {
            BinaryPrimitives.WriteInt32LittleEndian(bytes, count);
            return bytes;
        }));

    private static byte[] Write((VcpuStateSection Number, byte[] Content)[] sections) => sections.Aggregate(
        Header(1, (ushort)sections.Length),
        (bytes, section) => [.. bytes, .. SectionHeader((uint)section.Number, (uint)section.Content.Length), .. section.Content]);

    private static byte[] Header(ushort version, ushort sections)
    {
        byte[] header = new byte[HeaderBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(header, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(4), version);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(6), sections);
        return header;
    }

    private static byte[] SectionHeader(uint number, uint length)
    {
        byte[] header = new byte[SectionHeaderBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(header, number);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(4), length);
        return header;
    }

    private static byte[] RealState(bool irqchip)
    {
        if (!KvmDevice.IsPresent)
        {
            return [];
        }

        using Kvm kvm = Kvm.Open();
        using var machine = new TestMachine(kvm, irqchip);
        machine.Boot();
        return VcpuState.Capture(machine.VirtualMachine, machine.Cpu).Serialize();
    }
}
