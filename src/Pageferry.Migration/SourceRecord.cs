using System.Buffers.Binary;

namespace Pageferry.Migration;

/// <summary>
/// What a source that has stopped its guest has to know of its migration, beside the guest's memory, so that another process can serve on: in a form that other builds read or
/// refuse by name.
/// </summary>
public sealed class SourceRecord
{
    /// <summary>The form that this build writes and reads.</summary>
    public const int Version = 1;

    private const ulong Magic = 0x4352_5352_5345_4750;
    private const int HeaderBytes = 48;
    private const int VersionAt = 8;
    private const int FlagsAt = 12;
    private const int GenerationAt = 16;
    private const int LayoutBytesAt = 20;
    private const int StateBytesAt = 24;
    private const int SessionAt = 32;
    private const uint PausedFlag = 1;

    private SourceRecord(MigrationLayout layout, SessionId session, uint generation, bool isPaused, ReadOnlyMemory<byte> state)
    {
        Layout = layout;
        Session = session;
        Generation = generation;
        IsPaused = isPaused;
        State = state;
    }

    /// <summary>The guest.</summary>
    public MigrationLayout Layout { get; }

    /// <summary>Whether it was to stand still after the switchover.</summary>
    public bool IsPaused { get; }

    /// <summary>The machine state at the switchover. It is not among the record's own bytes.</summary>
    public ReadOnlyMemory<byte> State { get; }

    /// <summary>The session's secret.</summary>
    internal SessionId Session { get; }

    /// <summary>The generation of pages that go after the switchover.</summary>
    internal uint Generation { get; }

    internal static SourceRecord Of(MigrationLayout layout, SessionId session, uint generation, bool isPaused, ReadOnlyMemory<byte> state) => new(layout, session, generation, isPaused, state);

    /// <summary>Reads a record, of this build or another.</summary>
    /// <param name="bytes">What <see cref="Serialize"/> made.</param>
    /// <param name="state">The machine state.</param>
    /// <returns>The record.</returns>
    /// <exception cref="InvalidDataException">It is none, is of a form that is unknown here, or is damaged; the message says which.</exception>
    public static SourceRecord Parse(ReadOnlySpan<byte> bytes, ReadOnlyMemory<byte> state)
    {
        if (bytes.Length < HeaderBytes || BinaryPrimitives.ReadUInt64LittleEndian(bytes) != Magic)
        {
            throw new InvalidDataException("What the source left is no record of a migration.");
        }

        int version = BinaryPrimitives.ReadInt32LittleEndian(bytes[VersionAt..]);
        if (version != Version)
        {
            throw new InvalidDataException($"What the source left is a record of version {version}; this build knows version {Version}. Use the build that wrote it.");
        }

        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(bytes[FlagsAt..]);
        uint generation = BinaryPrimitives.ReadUInt32LittleEndian(bytes[GenerationAt..]);
        int layoutBytes = BinaryPrimitives.ReadInt32LittleEndian(bytes[LayoutBytesAt..]);
        int stateBytes = BinaryPrimitives.ReadInt32LittleEndian(bytes[StateBytesAt..]);
        var session = SessionId.Read(bytes[SessionAt..]);
        if ((flags & ~PausedFlag) != 0 || layoutBytes != bytes.Length - HeaderBytes || stateBytes != state.Length || state.Length > MigrationSource.MostStateBytes || session.IsNone)
        {
            throw Damaged($"it states flags 0x{flags:x}, a layout of {layoutBytes} bytes and a state of {stateBytes}, and has {bytes.Length - HeaderBytes} and {state.Length}");
        }

        try
        {
            return new SourceRecord(MigrationLayout.Deserialize(bytes[HeaderBytes..]), session, generation, flags == PausedFlag, state);
        }
        catch (ProtocolException e)
        {
            throw Damaged(e.Message);
        }
    }

    /// <summary>Writes all but the machine state.</summary>
    /// <returns>The bytes: up to 1200. The session's secret is among them.</returns>
    public byte[] Serialize()
    {
        byte[] layout = Layout.Serialize();
        var bytes = new byte[HeaderBytes + layout.Length];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, Magic);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(VersionAt), Version);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(FlagsAt), IsPaused ? PausedFlag : 0);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(GenerationAt), Generation);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(LayoutBytesAt), layout.Length);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(StateBytesAt), State.Length);
        Session.Write(bytes.AsSpan(SessionAt));
        layout.CopyTo(bytes, HeaderBytes);
        return bytes;
    }

    private static InvalidDataException Damaged(string how) => new($"The record that the source left is damaged: {how}.");
}
