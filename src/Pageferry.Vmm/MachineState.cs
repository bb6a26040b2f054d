using System.Buffers.Binary;

namespace Pageferry.Vmm;

/// <summary>
/// The binary form of a machine's state, little-endian: magic, version, host, number of vCPUs, pages found wrong; then for each vCPU its passes, pages
/// checked, and the length and bytes of what its host keeps of it.
/// </summary>
internal static class MachineState
{
    private const uint Magic = 0x4D43_4650; // "PFCM"
    private const ushort Version = 1;
    private const int HeaderBytes = 20;
    private const int VcpuHeaderBytes = 20;
    private const int MostVcpuBytes = 4 << 20;

    /// <summary>What is saved of one vCPU.</summary>
    internal readonly record struct Vcpu(ulong Passes, ulong PagesChecked, byte[] State);

    internal static byte[] Write(MachineHost host, ulong pagesWrong, IReadOnlyList<Vcpu> vcpus)
    {
        var bytes = new byte[HeaderBytes + vcpus.Sum(vcpu => VcpuHeaderBytes + vcpu.State.Length)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(4), Version);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(6), (ushort)host);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(8), vcpus.Count);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(12), pagesWrong);
        Span<byte> rest = bytes.AsSpan(HeaderBytes);
        foreach (Vcpu vcpu in vcpus)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(rest, vcpu.Passes);
            BinaryPrimitives.WriteUInt64LittleEndian(rest[8..], vcpu.PagesChecked);
            BinaryPrimitives.WriteInt32LittleEndian(rest[16..], vcpu.State.Length);
            vcpu.State.CopyTo(rest[VcpuHeaderBytes..]);
            rest = rest[(VcpuHeaderBytes + vcpu.State.Length)..];
        }

        return bytes;
    }

    internal static Vcpu[] Read(ReadOnlySpan<byte> bytes, MachineHost host, int vcpuCount, out ulong pagesWrong)
    {
        if (bytes.Length < HeaderBytes || BinaryPrimitives.ReadUInt32LittleEndian(bytes) != Magic)
        {
            throw new InvalidDataException("This is not a machine state.");
        }

        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]);
        var savedHost = (MachineHost)BinaryPrimitives.ReadUInt16LittleEndian(bytes[6..]);
        int count = BinaryPrimitives.ReadInt32LittleEndian(bytes[8..]);
        if (version != Version || savedHost != host || count != vcpuCount)
        {
            throw new InvalidDataException(
                $"The machine state is of version {version}, host {savedHost} and {count} vCPUs; this machine is of version {Version}, host {host} and {vcpuCount} vCPUs.");
        }

        pagesWrong = BinaryPrimitives.ReadUInt64LittleEndian(bytes[12..]);
        var vcpus = new Vcpu[count];
        ReadOnlySpan<byte> rest = bytes[HeaderBytes..];
        for (int i = 0; i < count; i++)
        {
            if (rest.Length < VcpuHeaderBytes)
            {
                throw new InvalidDataException($"The machine state ends before vCPU {i}.");
            }

            uint length = BinaryPrimitives.ReadUInt32LittleEndian(rest[16..]);
            if (length > MostVcpuBytes || length > rest.Length - VcpuHeaderBytes)
            {
                throw new InvalidDataException($"The machine state states {length} bytes for vCPU {i}; {rest.Length - VcpuHeaderBytes} follow.");
            }

            vcpus[i] = new Vcpu(
                BinaryPrimitives.ReadUInt64LittleEndian(rest),
                BinaryPrimitives.ReadUInt64LittleEndian(rest[8..]),
                rest.Slice(VcpuHeaderBytes, (int)length).ToArray());
            rest = rest[(VcpuHeaderBytes + (int)length)..];
        }

        return rest.IsEmpty ? vcpus : throw new InvalidDataException($"The machine state has {rest.Length} bytes behind its last vCPU.");
    }
}
