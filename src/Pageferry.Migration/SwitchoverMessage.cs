using System.Buffers.Binary;

namespace Pageferry.Migration;

/// <summary>What the destination needs to run the guest: which pages it has are out of date, and all that the guest is beside memory.</summary>
/// <param name="Generation">What pages sent from now on carry.</param>
/// <param name="IsPaused">Whether the guest stands still at the destination too, until somebody resumes it.</param>
/// <param name="OutOfDate">Pages that arrived and were written since, as <see cref="RunCoding"/> has them.</param>
/// <param name="State">The machine state.</param>
internal readonly record struct SwitchoverMessage(uint Generation, bool IsPaused, ReadOnlyMemory<byte> OutOfDate, ReadOnlyMemory<byte> State)
{
    /// <summary>The most bytes of runs: 16 MiB.</summary>
    internal const int MostRunBytes = 16 << 20;

    /// <summary>The most bytes of the message.</summary>
    internal const int MostBytes = HeaderBytes + MostRunBytes + MigrationSource.MostStateBytes;

    private const int HeaderBytes = 16;

    internal byte[] Serialize()
    {
        var bytes = new byte[HeaderBytes + OutOfDate.Length + State.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Generation);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(4), IsPaused ? 1u : 0);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(8), OutOfDate.Length);
        OutOfDate.CopyTo(bytes.AsMemory(HeaderBytes));
        State.CopyTo(bytes.AsMemory(HeaderBytes + OutOfDate.Length));
        return bytes;
    }

    /// <exception cref="ProtocolException">It makes no sense.</exception>
    internal static SwitchoverMessage Deserialize(ReadOnlyMemory<byte> bytes)
    {
        ReadOnlySpan<byte> from = bytes.Span;
        if (from.Length < HeaderBytes)
        {
            throw new ProtocolException($"A switchover has at least {HeaderBytes} bytes, not {from.Length}.");
        }

        uint generation = BinaryPrimitives.ReadUInt32LittleEndian(from);
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(from[4..]);
        uint runBytes = BinaryPrimitives.ReadUInt32LittleEndian(from[8..]);
        return generation > 0 && flags <= 1 && runBytes <= MostRunBytes && runBytes <= from.Length - HeaderBytes && BinaryPrimitives.ReadUInt32LittleEndian(from[12..]) == 0
            ? new SwitchoverMessage(generation, flags == 1, bytes.Slice(HeaderBytes, (int)runBytes), bytes[(HeaderBytes + (int)runBytes)..])
            : throw new ProtocolException($"The source sent a switchover of generation {generation} with flags 0x{flags:x} and {runBytes} bytes of runs in {from.Length} bytes.");
    }
}
