using System.Buffers.Binary;
using CsCheck;

namespace Pageferry.Kvm.Tests;

/// <summary>An exit is read from <c>struct kvm_run</c> as the kernel leaves it there.</summary>
public class VcpuExitTests
{
    private static readonly uint[] s_known =
    [
        Interop.KVM_EXIT_IO, Interop.KVM_EXIT_HLT, Interop.KVM_EXIT_MMIO, Interop.KVM_EXIT_SHUTDOWN, Interop.KVM_EXIT_FAIL_ENTRY,
        Interop.KVM_EXIT_INTERNAL_ERROR, Interop.KVM_EXIT_SYSTEM_EVENT, Interop.KVM_EXIT_DIRTY_RING_FULL, Interop.KVM_EXIT_MEMORY_FAULT,
    ];

    [Fact]
    public void An_unknown_reason_is_kept() => Gen.UInt.Where(reason => !s_known.Contains(reason)).Sample(reason =>
        Assert.Equal(new VcpuExit(VcpuExitKind.Unknown, reason), VcpuExit.Read(Run(reason))));

    [Fact]
    public void The_reasons_beside_the_known_ones_are_unknown_and_kept()
    {
        for (uint reason = 0; reason < 64; reason++)
        {
            VcpuExit exit = VcpuExit.Read(Run(reason));
            Assert.Equal(reason, exit.Reason);
            Assert.Equal(s_known.Contains(reason), exit.Kind != VcpuExitKind.Unknown);
        }
    }

    [Fact]
    public void Any_bytes_are_an_exit_and_keep_their_reason() => Gen.Byte.Array[Interop.RunExitBytes].Sample(run =>
        Assert.Equal(BinaryPrimitives.ReadUInt32LittleEndian(run.AsSpan(Interop.RunExitReason)), VcpuExit.Read(run).Reason));

    [Theory]
    [InlineData(0, VcpuExitKind.PortRead)]
    [InlineData(1, VcpuExitKind.PortWrite)]
    public void A_port_access_has_its_port_size_and_count(byte direction, VcpuExitKind kind)
    {
        byte[] run = Run(Interop.KVM_EXIT_IO);
        run[Interop.RunIoDirection] = direction;
        run[Interop.RunIoSize] = 2;
        BinaryPrimitives.WriteUInt16LittleEndian(run.AsSpan(Interop.RunIoPort), 0x3F8);
        BinaryPrimitives.WriteUInt32LittleEndian(run.AsSpan(Interop.RunIoCount), 5);
        Assert.Equal(new VcpuExit(kind, Interop.KVM_EXIT_IO, 0x3F8, 2, 5), VcpuExit.Read(run));
    }

    [Theory]
    [InlineData(0, VcpuExitKind.MmioRead)]
    [InlineData(1, VcpuExitKind.MmioWrite)]
    public void An_mmio_access_has_its_address_and_size(byte write, VcpuExitKind kind)
    {
        byte[] run = Run(Interop.KVM_EXIT_MMIO);
        BinaryPrimitives.WriteUInt64LittleEndian(run.AsSpan(Interop.RunMmioAddress), 0xFEE0_0030);
        BinaryPrimitives.WriteUInt32LittleEndian(run.AsSpan(Interop.RunMmioLength), 4);
        run[Interop.RunMmioIsWrite] = write;
        Assert.Equal(new VcpuExit(kind, Interop.KVM_EXIT_MMIO, 0xFEE0_0030, 4, 1), VcpuExit.Read(run));
    }

    [Fact]
    public void A_memory_fault_has_its_address_flags_and_length()
    {
        byte[] run = Run(Interop.KVM_EXIT_MEMORY_FAULT);
        BinaryPrimitives.WriteUInt64LittleEndian(run.AsSpan(Interop.RunMemoryFaultFlags), 1UL << 40);
        BinaryPrimitives.WriteUInt64LittleEndian(run.AsSpan(Interop.RunMemoryFaultAddress), 0x1_2345_6000);
        BinaryPrimitives.WriteUInt64LittleEndian(run.AsSpan(Interop.RunMemoryFaultSize), 4096);
        Assert.Equal(
            new VcpuExit(VcpuExitKind.MemoryFault, Interop.KVM_EXIT_MEMORY_FAULT, 0x1_2345_6000, Value: 1UL << 40, Length: 4096),
            VcpuExit.Read(run));
    }

    [Theory]
    [InlineData(Interop.KVM_EXIT_HLT, VcpuExitKind.Halt, 0)]
    [InlineData(Interop.KVM_EXIT_SHUTDOWN, VcpuExitKind.Shutdown, 0)]
    [InlineData(Interop.KVM_EXIT_FAIL_ENTRY, VcpuExitKind.FailEntry, 0x8000_0000_0000_0021)]
    [InlineData(Interop.KVM_EXIT_INTERNAL_ERROR, VcpuExitKind.InternalError, 1)]
    [InlineData(Interop.KVM_EXIT_SYSTEM_EVENT, VcpuExitKind.SystemEvent, 3)]
    public void The_other_reasons_have_their_number(uint reason, VcpuExitKind kind, ulong value)
    {
        // The numbers of all three lie at the start of the union.
        byte[] run = Run(reason);
        BinaryPrimitives.WriteUInt64LittleEndian(run.AsSpan(Interop.RunFailEntryReason), value);
        Assert.Equal(new VcpuExit(kind, reason, Value: value), VcpuExit.Read(run));
    }

    private static byte[] Run(uint reason)
    {
        byte[] run = new byte[Interop.RunExitBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(run.AsSpan(Interop.RunExitReason), reason);
        return run;
    }
}
