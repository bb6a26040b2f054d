using System.Buffers.Binary;

namespace Pageferry.Kvm;

/// <summary>A virtual machine's clock, which guests read by kvmclock: <c>struct kvm_clock_data</c>.</summary>
/// <param name="Nanoseconds">Since the virtual machine was made, or since what <see cref="VirtualMachine.SetClock"/> said.</param>
/// <param name="Flags">What of the rest is known.</param>
/// <param name="Realtime">The host's CLOCK_REALTIME in nanoseconds since 1970; valid with <see cref="ClockFlags.Realtime"/>.</param>
/// <param name="HostTsc">The host's time stamp counter; valid with <see cref="ClockFlags.HostTsc"/>.</param>
public readonly record struct MachineClock(ulong Nanoseconds, ClockFlags Flags, ulong Realtime, ulong HostTsc)
{
    /// <summary>The bytes of the binary form.</summary>
    public const int SerializedBytes = 28;

    /// <summary>The binary form, little-endian: nanoseconds (8 bytes), flags (4), realtime (8), host TSC (8).</summary>
    /// <returns><see cref="SerializedBytes"/> bytes that <see cref="Deserialize"/> takes.</returns>
    public byte[] Serialize()
    {
        var bytes = new byte[SerializedBytes];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, Nanoseconds);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), (uint)Flags);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(12), Realtime);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(20), HostTsc);
        return bytes;
    }

    /// <summary>Reads the binary form.</summary>
    /// <param name="bytes">What <see cref="Serialize"/> made, or anything else.</param>
    /// <returns>The clock.</returns>
    /// <exception cref="InvalidDataException">It has another length.</exception>
    public static MachineClock Deserialize(ReadOnlySpan<byte> bytes) => bytes.Length == SerializedBytes
        ? new MachineClock(
            BinaryPrimitives.ReadUInt64LittleEndian(bytes),
            (ClockFlags)BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[12..]),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[20..]))
        : throw new InvalidDataException($"A machine's clock has {SerializedBytes} bytes, not {bytes.Length}.");
}
