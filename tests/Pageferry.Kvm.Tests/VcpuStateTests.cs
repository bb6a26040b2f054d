using System.Buffers.Binary;
using Iced.Intel;
using Pageferry.Linux;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Kvm.Tests;

/// <summary>A guest fills its registers, its vCPU's state goes to another virtual machine as bytes, and the guest there finds them.</summary>
[NeedsKvm]
public class VcpuStateTests
{
    private const ushort Filled = 0x10;
    private const ushort Stored = 0x11;
    private const ulong X87SseAvx = 7;

    // In the guest's data: what it fills its vectors and its x87 stack with, and where it stores all it finds.
    private const ulong VectorsIn = TestMachine.DataAddress;
    private const ulong X87In = TestMachine.DataAddress + 0x400;
    private const ulong ControlsIn = TestMachine.DataAddress + 0x500;
    private const ulong VectorsOut = TestMachine.DataAddress + 0x1000;
    private const ulong X87Out = TestMachine.DataAddress + 0x1400;
    private const ulong ControlsOut = TestMachine.DataAddress + 0x1500;
    private const ulong GeneralOut = TestMachine.DataAddress + 0x1600;
    private const int X87Registers = 8;
    private const int X87Bytes = 10;
    private const ushort X87Control = 0x0E7F;  // rounds to zero, double precision
    private const uint Mxcsr = 0x7FA1;         // rounds to zero, two exceptions seen
    private const uint TimeStampCounter = 0x10;
    private const ulong Minute = 60_000_000_000;
    private const ulong Hour = 60 * Minute;

    // CF, PF, AF, ZF, SF, DF and OF. The others are the kernel's business: a software KVM shows the processor's own IF and IOPL to a guest at CPL 3.
    private const ulong Flags = 0xCD5;

    /// <summary>Go on while nobody looks: the counter, HV_X64_MSR_VP_RUNTIME and HV_X64_MSR_TIME_REF_COUNT.</summary>
    private static readonly uint[] s_clocks = [TimeStampCounter, 0x4000_0010, 0x4000_0020];

    private static readonly AssemblerRegister64[] s_general = [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15];

    private static readonly AssemblerRegisterXMM[] s_xmm =
        [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];

    private static readonly AssemblerRegisterYMM[] s_ymm =
        [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void A_guest_finds_its_registers_on_another_vcpu(bool avx, bool irqchip)
    {
        using Kvm kvm = Kvm.Open();
        Assert.SkipUnless(!avx || (SupportedXcr0(kvm) & X87SseAvx) == X87SseAvx, "AVX for guests");
        int vectorBytes = avx ? 32 : 16;
        byte[] code = Assemble(avx);
        using var source = new TestMachine(kvm, irqchip);
        source.Load(code);
        source.Boot(avx ? X87SseAvx : X87SseAvx & ~4UL);
        var random = new Random(20);
        byte[] vectors = new byte[16 * vectorBytes];
        random.NextBytes(vectors);
        vectors.CopyTo(source.Memory.Span(VectorsIn, vectors.Length));
        byte[] x87 = X87Values(random);
        x87.CopyTo(source.Memory.Span(X87In, x87.Length));
        Span<byte> controls = source.Memory.Span(ControlsIn, 6);
        BinaryPrimitives.WriteUInt32LittleEndian(controls, Mxcsr);
        BinaryPrimitives.WriteUInt16LittleEndian(controls[4..], X87Control);
        source.RunTo(Filled);
        byte[] state = VcpuState.Capture(source.VirtualMachine, source.Cpu).Serialize();

        using var destination = new TestMachine(kvm, irqchip);
        destination.Load(code);
        VcpuState.Deserialize(state).Restore(destination.VirtualMachine, destination.Cpu);
        destination.RunTo(Stored);
        Assert.Equal(Convert.ToHexString(vectors), Convert.ToHexString(destination.Memory.Span(VectorsOut, vectors.Length)));
        Assert.Equal(Convert.ToHexString(x87), Convert.ToHexString(destination.Memory.Span(X87Out, x87.Length)));
        ReadOnlySpan<byte> found = destination.Memory.Span(ControlsOut, 16);
        Assert.Equal(Mxcsr, BinaryPrimitives.ReadUInt32LittleEndian(found));
        Assert.Equal(X87Control, BinaryPrimitives.ReadUInt16LittleEndian(found[4..]));
        Assert.Equal(Flags, BinaryPrimitives.ReadUInt64LittleEndian(found[8..]) & Flags);
        for (int i = 0; i < s_general.Length; i++)
        {
            ulong value = BinaryPrimitives.ReadUInt64LittleEndian(destination.Memory.Span(GeneralOut + ((ulong)i * 8), 8));
            Assert.True(GeneralValue(i) == value, $"{(Register)s_general[i]} is 0x{value:x} instead of 0x{GeneralValue(i):x}.");
        }
    }

    [Fact]
    public void All_that_the_kernel_lists_arrives()
    {
        using Kvm kvm = Kvm.Open();
        using var source = new TestMachine(kvm);
        source.Boot();
        SetDebugRegisters(source.Cpu);
        SetMsr(source.Cpu, 0xC000_0081, 0x0023_0010_0000_0000);    // STAR
        SetMsr(source.Cpu, 0xC000_0082, 0xFFFF_FFFF_8123_4560);    // LSTAR
        SetMsr(source.Cpu, 0xC000_0084, 0x4_7700);                 // SFMASK
        SetMsr(source.Cpu, 0xC000_0102, 0xFFFF_8880_1234_5000);    // KERNEL_GS_BASE
        SetMsr(source.Cpu, 0x174, 0x10);                           // SYSENTER_CS
        SetMsr(source.Cpu, 0x175, 0xFFFF_8880_0000_1000);          // SYSENTER_ESP
        SetMsr(source.Cpu, 0x277, 0x0007_0105_0600_0406);          // PAT
        VcpuState saved = VcpuState.Capture(source.VirtualMachine, source.Cpu);
        Assert.NotEmpty(Msrs(saved));

        using var destination = new TestMachine(kvm);
        VcpuState.Deserialize(saved.Serialize()).Restore(destination.VirtualMachine, destination.Cpu);
        VcpuState arrived = VcpuState.Capture(destination.VirtualMachine, destination.Cpu);
        foreach (VcpuStateSection section in saved.Sections.Keys.Where(section => section != VcpuStateSection.Msrs))
        {
            Assert.Equal($"{section} {Convert.ToHexString(saved.Sections[section])}", $"{section} {Convert.ToHexString(arrived.Sections[section])}");
        }

        Dictionary<uint, ulong> sent = Msrs(saved);
        Dictionary<uint, ulong> found = Msrs(arrived);
        Assert.Equal(sent.Keys.Order(), found.Keys.Order());
        Assert.InRange(found[TimeStampCounter], sent[TimeStampCounter], sent[TimeStampCounter] + 1_000_000_000_000);
        Assert.Empty(sent.Where(msr => !s_clocks.Contains(msr.Key) && found[msr.Key] != msr.Value)
            .Select(msr => $"MSR 0x{msr.Key:x} is 0x{found[msr.Key]:x} instead of 0x{msr.Value:x}"));
    }

    [Fact]
    public void Every_listed_msr_that_can_be_read_is_in_the_state()
    {
        using Kvm kvm = Kvm.Open();
        using var machine = new TestMachine(kvm);
        machine.Boot();
        uint[] readable = [.. kvm.GetMsrIndexList().Where(index => TryGetMsr(machine.Cpu, index, out _))];
        Assert.NotEmpty(readable);
        Assert.Equal(readable.Order(), Msrs(VcpuState.Capture(machine.VirtualMachine, machine.Cpu)).Keys.Order());
    }

    [Theory]
    [InlineData(0)] // KVM_MP_STATE_RUNNABLE
    [InlineData(1)] // KVM_MP_STATE_UNINITIALIZED
    [InlineData(3)] // KVM_MP_STATE_HALTED
    public void The_mp_state_the_local_apic_and_the_clock_arrive_where_there_is_an_irqchip(uint mpState)
    {
        using Kvm kvm = Kvm.Open();
        using var source = new TestMachine(kvm, irqchip: true);
        source.Boot();
        byte[] mp = new byte[Interop.MpStateBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(mp, mpState);
        source.Cpu.SetRaw(Interop.KVM_SET_MP_STATE, mp, "MP state");
        byte[] lapic = source.Cpu.GetLapic();
        lapic[0x80] = 0x30;     // task priority
        lapic[0xF0] = 0xEF;     // spurious vector, and
        lapic[0xF1] = 0x01;     // enabled
        lapic[0x320] = 0xEC;    // timer's vector
        source.Cpu.SetLapic(lapic);
        source.VirtualMachine.SetClock(new MachineClock(Hour, ClockFlags.None, 0, 0));
        VcpuState saved = VcpuState.Capture(source.VirtualMachine, source.Cpu);
        Assert.InRange(BinaryPrimitives.ReadUInt64LittleEndian(saved.Sections[VcpuStateSection.Clock]), Hour, Hour + Minute);

        using var destination = new TestMachine(kvm, irqchip: true);
        VcpuState.Deserialize(saved.Serialize()).Restore(destination.VirtualMachine, destination.Cpu);
        VcpuState arrived = VcpuState.Capture(destination.VirtualMachine, destination.Cpu);
        Assert.Equal(mp, arrived.Sections[VcpuStateSection.MpState]);
        Assert.InRange(destination.VirtualMachine.GetClock().Nanoseconds, Hour, Hour + (2 * Minute));
        Assert.Equal(0x30, arrived.Sections[VcpuStateSection.Lapic][0x80]);
        Assert.Equal(Convert.ToHexString(saved.Sections[VcpuStateSection.Lapic]), Convert.ToHexString(arrived.Sections[VcpuStateSection.Lapic]));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Machines_that_differ_in_interrupt_controllers_are_refused(bool irqchip)
    {
        using Kvm kvm = Kvm.Open();
        using var source = new TestMachine(kvm, irqchip);
        source.Boot();
        VcpuState state = VcpuState.Capture(source.VirtualMachine, source.Cpu);
        Assert.Equal(irqchip, state.Sections.ContainsKey(VcpuStateSection.Lapic));
        Assert.Equal(irqchip, state.Sections.ContainsKey(VcpuStateSection.Clock));
        using var destination = new TestMachine(kvm, !irqchip);
        NotSupportedException failure = Assert.Throws<NotSupportedException>(() => state.Restore(destination.VirtualMachine, destination.Cpu));
        Assert.Contains("local APIC", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Pending_events_arrive()
    {
        using Kvm kvm = Kvm.Open();
        using var source = new TestMachine(kvm);
        source.Boot();

        // struct kvm_vcpu_events: an NMI waits and NMIs are masked (nmi.pending and nmi.masked, stated to be valid by flags).
        byte[] events = new byte[Interop.EventsBytes];
        source.Cpu.GetRaw(Interop.KVM_GET_VCPU_EVENTS, events, "events");
        events[13] = 1;
        events[14] = 1;
        events[20] |= 1;
        source.Cpu.SetRaw(Interop.KVM_SET_VCPU_EVENTS, events, "events");
        VcpuState saved = VcpuState.Capture(source.VirtualMachine, source.Cpu);
        Assert.Equal(1, saved.Sections[VcpuStateSection.Events][14]);

        using var destination = new TestMachine(kvm);
        VcpuState.Deserialize(saved.Serialize()).Restore(destination.VirtualMachine, destination.Cpu);
        VcpuState arrived = VcpuState.Capture(destination.VirtualMachine, destination.Cpu);
        Assert.Equal(Convert.ToHexString(saved.Sections[VcpuStateSection.Events]), Convert.ToHexString(arrived.Sections[VcpuStateSection.Events]));
    }

    [Fact]
    public void An_msr_that_can_not_have_its_value_here_is_named()
    {
        using Kvm kvm = Kvm.Open();
        using var machine = new TestMachine(kvm);
        machine.Boot();
        byte[] bytes = VcpuState.Capture(machine.VirtualMachine, machine.Cpu).Serialize();

        // LSTAR with an address that is not canonical.
        int at = bytes.AsSpan().IndexOf((ReadOnlySpan<byte>)[0x82, 0, 0, 0xC0, 0, 0, 0, 0]);
        Assert.True(at > 0);
        bytes[at + Interop.MsrEntryData + 7] = 0x80;
        NotSupportedException failure = Assert.Throws<NotSupportedException>(() => VcpuState.Deserialize(bytes).Restore(machine.VirtualMachine, machine.Cpu));
        Assert.Contains("MSR 0xc0000082 of vCPU 0", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_local_apic_needs_an_irqchip_and_its_length()
    {
        using Kvm kvm = Kvm.Open();
        using var machine = new TestMachine(kvm);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(machine.Cpu.GetLapic).Errno);
        _ = Assert.Throws<LinuxException>(() => machine.Cpu.SetLapic(new byte[Interop.LapicBytes]));
        _ = Assert.Throws<ArgumentException>(() => machine.Cpu.SetLapic(new byte[Interop.LapicBytes - 1]));
    }

    /// <summary>Fills all registers from memory and constants, leaves by a port, stores all registers, and leaves by another.</summary>
    private static byte[] Assemble(bool avx)
    {
        var asm = new Assembler(64);
        for (int i = 0; i < s_xmm.Length; i++)
        {
            if (avx)
            {
                asm.vmovdqu(s_ymm[i], __ymmword_ptr[VectorsIn + ((ulong)i * 32)]);
            }
            else
            {
                asm.movdqu(s_xmm[i], __xmmword_ptr[VectorsIn + ((ulong)i * 16)]);
            }
        }

        asm.fninit();
        for (int i = X87Registers - 1; i >= 0; i--)
        {
            asm.fld(__tword_ptr[X87In + (ulong)(i * X87Bytes)]);
        }

        asm.ldmxcsr(__dword_ptr[ControlsIn]);
        asm.fldcw(__word_ptr[ControlsIn + 4]);

        // The stack is there for the flags; its pointer is a value like the others afterwards.
        asm.push((int)(Flags | 2));
        asm.popfq();
        for (int i = 0; i < s_general.Length; i++)
        {
            asm.mov(s_general[i], GeneralValue(i));
        }

        asm.@out((byte)Filled, al);
        for (int i = 0; i < s_general.Length; i++)
        {
            asm.mov(__qword_ptr[GeneralOut + ((ulong)i * 8)], s_general[i]);
        }

        asm.pushfq();
        asm.pop(__qword_ptr[ControlsOut + 8]);
        asm.stmxcsr(__dword_ptr[ControlsOut]);
        asm.fnstcw(__word_ptr[ControlsOut + 4]);
        for (int i = 0; i < s_xmm.Length; i++)
        {
            if (avx)
            {
                asm.vmovdqu(__ymmword_ptr[VectorsOut + ((ulong)i * 32)], s_ymm[i]);
            }
            else
            {
                asm.movdqu(__xmmword_ptr[VectorsOut + ((ulong)i * 16)], s_xmm[i]);
            }
        }

        for (int i = 0; i < X87Registers; i++)
        {
            asm.fstp(__tword_ptr[X87Out + (ulong)(i * X87Bytes)]);
        }

        asm.@out((byte)Stored, al);
        using var code = new MemoryStream();
        _ = asm.Assemble(new StreamCodeWriter(code), TestMachine.CodeAddress);
        return code.ToArray();
    }

    /// <summary>A value that tells each register from the others; the stack pointer's is a place in memory.</summary>
    private static ulong GeneralValue(int register) =>
        s_general[register] == rsp ? TestMachine.StackTop - 0x128 : 0x0123_4567_89AB_CDEF * (ulong)((2 * register) + 1);

    /// <summary>Normal 80-bit numbers, ST(0) first.</summary>
    private static byte[] X87Values(Random random)
    {
        byte[] values = new byte[X87Registers * X87Bytes];
        random.NextBytes(values);
        for (int i = 0; i < X87Registers; i++)
        {
            values[(i * X87Bytes) + 7] |= 0x80;                 // the integer bit
            values[(i * X87Bytes) + 9] = (byte)(0x40 | (i << 7)); // the exponent, and both signs
        }

        return values;
    }

    private static void SetDebugRegisters(VirtualCpu vcpu)
    {
        // struct kvm_debugregs: db[4], dr6, dr7, flags. No breakpoint is enabled; one would be a write watch of 8 bytes.
        byte[] registers = new byte[Interop.DebugRegistersBytes];
        for (int i = 0; i < 4; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(registers.AsSpan(i * 8), TestMachine.DataAddress + (ulong)(i * 0x108));
        }

        BinaryPrimitives.WriteUInt64LittleEndian(registers.AsSpan(32), 0xFFFF_0FF5);
        BinaryPrimitives.WriteUInt64LittleEndian(registers.AsSpan(40), 0x0009_0400);
        vcpu.SetRaw(Interop.KVM_SET_DEBUGREGS, registers, "debug registers");
    }

    private static void SetMsr(VirtualCpu vcpu, uint index, ulong value)
    {
        byte[] msr = Msr(index);
        BinaryPrimitives.WriteUInt64LittleEndian(msr.AsSpan(Interop.MsrsHeaderBytes + Interop.MsrEntryData), value);
        Assert.True(Interop.Ioctl(vcpu.Descriptor, Interop.KVM_SET_MSRS, msr) == 1, $"MSR 0x{index:x} can't be set.");
    }

    private static bool TryGetMsr(VirtualCpu vcpu, uint index, out ulong value)
    {
        byte[] msr = Msr(index);
        bool read = Interop.Ioctl(vcpu.Descriptor, Interop.KVM_GET_MSRS, msr) == 1;
        value = BinaryPrimitives.ReadUInt64LittleEndian(msr.AsSpan(Interop.MsrsHeaderBytes + Interop.MsrEntryData));
        return read;
    }

    private static byte[] Msr(uint index)
    {
        byte[] msr = new byte[Interop.MsrsHeaderBytes + Interop.MsrEntryBytes];
        msr[0] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(msr.AsSpan(Interop.MsrsHeaderBytes), index);
        return msr;
    }

    private static Dictionary<uint, ulong> Msrs(VcpuState state)
    {
        byte[] section = state.Sections[VcpuStateSection.Msrs];
        var msrs = new Dictionary<uint, ulong>();
        for (int at = Interop.MsrsHeaderBytes; at < section.Length; at += Interop.MsrEntryBytes)
        {
            msrs.Add(BinaryPrimitives.ReadUInt32LittleEndian(section.AsSpan(at)), BinaryPrimitives.ReadUInt64LittleEndian(section.AsSpan(at + Interop.MsrEntryData)));
        }

        return msrs;
    }

    /// <summary>CPUID leaf 0xD, subleaf 0, EAX.</summary>
    private static ulong SupportedXcr0(Kvm kvm)
    {
        byte[] cpuid = kvm.GetSupportedCpuid();
        for (int at = Interop.CpuidHeaderBytes; at < cpuid.Length; at += Interop.CpuidEntryBytes)
        {
            ReadOnlySpan<byte> leaf = cpuid.AsSpan(at);
            if (BinaryPrimitives.ReadUInt32LittleEndian(leaf) == 0xD && BinaryPrimitives.ReadUInt32LittleEndian(leaf[4..]) == 0)
            {
                return BinaryPrimitives.ReadUInt32LittleEndian(leaf[12..]);
            }
        }

        return 1;
    }
}
