using System.Buffers.Binary;
using CsCheck;

namespace Pageferry.Kvm.Tests;

public class VcpuStateTests
{
    private static readonly Lazy<byte[]> s_valid = new(Capture);

    [Fact]
    public void Every_group_that_was_set_is_found_on_another_vcpu()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        vcpu.SetCpuid(kvm.GetSupportedCpuid());
        vcpu.Registers = new VcpuRegisters
        {
            Rax = 1,
            Rbx = 2,
            Rcx = 3,
            Rdx = 4,
            Rsi = 5,
            Rdi = 6,
            Rsp = 7,
            Rbp = 8,
            R8 = 9,
            R9 = 10,
            R10 = 11,
            R11 = 12,
            R12 = 13,
            R13 = 14,
            R14 = 15,
            R15 = 16,
            Rip = 17,
            Rflags = 0x202,
        };
        VcpuSystemRegisters system = vcpu.SystemRegisters;
        system.Cr2 = 0x1234_5678;
        system.Gdt = system.Gdt with { Base = 0x4000, Limit = 0x7f };
        vcpu.SystemRegisters = system;
        vcpu.Xcr0 = 7;
        VcpuState state = VcpuState.Capture(machine, vcpu);

        // Vector registers: each byte of the legacy area's XMM registers its own value, and both parts named as in use.
        byte[] xsave = state.Sections[VcpuStateSection.Xsave];
        for (int i = 160; i < 416; i++)
        {
            xsave[i] = (byte)(i * 7);
        }

        for (int i = 576; i < 832; i++)
        {
            xsave[i] = (byte)(i * 5);
        }

        xsave[512] = 7;

        // Breakpoint addresses 0 to 3; TSC_AUX-like MSRs keep what KVM gave them; an NMI is pending.
        byte[] debug = state.Sections[VcpuStateSection.DebugRegisters];
        for (int i = 0; i < 4; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(debug.AsSpan(i * 8), 0x1000UL * (ulong)(i + 1));
        }

        byte[] msrs = state.Sections[VcpuStateSection.Msrs];
        SetMsr(msrs, 0xC000_0082, 0xffff_8000_1234_5678); // LSTAR
        SetMsr(msrs, 0xC000_0102, 0x7777_0000);           // KERNEL_GS_BASE
        byte[] saved = state.Serialize();

        using VirtualMachine other = kvm.CreateVirtualMachine();
        using VirtualCpu target = other.CreateVcpu(0);
        VcpuState.Deserialize(saved).Restore(other, target);
        VcpuState found = VcpuState.Capture(other, target);
        Assert.Equal(vcpu.Registers, target.Registers);
        Assert.Equal(system, target.SystemRegisters);
        Assert.Equal(7UL, target.Xcr0);
        Assert.Equal(xsave.AsSpan(160, 256), found.Sections[VcpuStateSection.Xsave].AsSpan(160, 256));
        Assert.Equal(xsave.AsSpan(576, 256), found.Sections[VcpuStateSection.Xsave].AsSpan(576, 256));
        Assert.Equal(debug, found.Sections[VcpuStateSection.DebugRegisters]);
        Assert.Equal(state.Sections[VcpuStateSection.Events], found.Sections[VcpuStateSection.Events]);
        Assert.Equal(state.Sections[VcpuStateSection.MpState], found.Sections[VcpuStateSection.MpState]);
        Assert.Equal(0xffff_8000_1234_5678UL, Msr(found, 0xC000_0082));
        Assert.Equal(0x7777_0000UL, Msr(found, 0xC000_0102));
        Assert.True(found.Sections[VcpuStateSection.Msrs].Length > 8 + (16 * 16), "The kernel lists more MSRs than that.");
    }

    [Fact]
    public void A_local_apic_and_the_clock_go_where_there_are_interrupt_controllers()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        if (kvm.CheckExtension(KvmCapability.IrqChip) == 0)
        {
            Assert.Skip("This KVM has no interrupt controllers (KVM_CAP_IRQCHIP).");
        }

        machine.CreateIrqchip();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        vcpu.SetCpuid(kvm.GetSupportedCpuid());
        machine.SetClock(1_000_000_000_000);
        VcpuState state = VcpuState.Capture(machine, vcpu);
        Assert.InRange(BinaryPrimitives.ReadUInt64LittleEndian(state.Sections[VcpuStateSection.Clock]), 1_000_000_000_000UL, 1_100_000_000_000UL);

        // The task priority register.
        state.Sections[VcpuStateSection.Lapic][0x80] = 0x20;
        byte[] saved = state.Serialize();
        using VirtualMachine other = kvm.CreateVirtualMachine();
        other.CreateIrqchip();
        using VirtualCpu target = other.CreateVcpu(0);
        VcpuState.Deserialize(saved).Restore(other, target);
        Assert.Equal(0x20, VcpuState.Capture(other, target).Sections[VcpuStateSection.Lapic][0x80]);
        Assert.InRange(other.GetClock(), 1_000_000_000_000UL, 1_100_000_000_000UL);

        using VirtualMachine without = kvm.CreateVirtualMachine();
        using VirtualCpu bare = without.CreateVcpu(0);
        Assert.Contains("local APIC", Assert.Throws<NotSupportedException>(() => VcpuState.Deserialize(saved).Restore(without, bare)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_msr_that_can_not_be_set_here_is_named()
    {
        VcpuState state = VcpuState.Deserialize(s_valid.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(state.Sections[VcpuStateSection.Msrs].AsSpan(8), 0x4000_dead);
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        Assert.Contains("0x4000dead", Assert.Throws<NotSupportedException>(() => state.Restore(machine, vcpu)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_changed_byte_is_another_state_or_refused() =>
        Gen.Select(Gen.Int[0, s_valid.Value.Length - 1], Gen.Byte).Sample((at, value) =>
        {
            byte[] bytes = [.. s_valid.Value];
            bytes[at] = value;
            return IsStateOrRefused(bytes);
        });

    [Fact]
    public void A_shorter_or_longer_state_is_refused() =>
        Gen.Int[1, s_valid.Value.Length].Sample(count =>
            IsRefused(s_valid.Value[..^count]) && IsRefused([.. s_valid.Value, .. new byte[count]]));

    [Fact]
    public void No_bytes_do_harm() => Gen.Byte.Array[0, 200].Sample(bytes => IsStateOrRefused(bytes) && IsStateOrRefused([.. s_valid.Value.AsSpan(0, 8), .. bytes]));

    [Fact]
    public void Another_version_names_both()
    {
        byte[] bytes = [.. s_valid.Value];
        bytes[4] = 9;
        string message = Assert.Throws<InvalidDataException>(() => VcpuState.Deserialize(bytes)).Message;
        Assert.Contains("version 9", message, StringComparison.Ordinal);
        Assert.Contains("version 1", message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_unknown_section_is_refused_by_its_number()
    {
        byte[] bytes = [.. s_valid.Value];
        bytes[8] = 77;
        Assert.Contains("77", Assert.Throws<InvalidDataException>(() => VcpuState.Deserialize(bytes)).Message, StringComparison.Ordinal);
    }

    private static byte[] Capture()
    {
        using Kvm kvm = Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        vcpu.SetCpuid(kvm.GetSupportedCpuid());
        return VcpuState.Capture(machine, vcpu).Serialize();
    }

    private static bool IsRefused(byte[] bytes)
    {
        try
        {
            _ = VcpuState.Deserialize(bytes);
            return false;
        }
        catch (InvalidDataException)
        {
            return true;
        }
    }

    private static bool IsStateOrRefused(byte[] bytes) => IsRefused(bytes) || VcpuState.Deserialize(bytes).Serialize().AsSpan().SequenceEqual(bytes);

    private static int IndexOfMsr(ReadOnlySpan<byte> msrs, uint index)
    {
        for (int at = 8; at < msrs.Length; at += 16)
        {
            if (BinaryPrimitives.ReadUInt32LittleEndian(msrs[at..]) == index)
            {
                return at;
            }
        }

        throw new InvalidOperationException($"MSR 0x{index:x} is not in the state.");
    }

    private static void SetMsr(byte[] msrs, uint index, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(msrs.AsSpan(IndexOfMsr(msrs, index) + 8), value);

    private static ulong Msr(VcpuState state, uint index) =>
        BinaryPrimitives.ReadUInt64LittleEndian(state.Sections[VcpuStateSection.Msrs].AsSpan(IndexOfMsr(state.Sections[VcpuStateSection.Msrs], index) + 8));
}
