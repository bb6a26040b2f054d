using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// What an arrival must not forget when the process that takes the guest in dies: whose the guest is, the session's secret, the page states, and what arrived. It lies
/// in a buffer that outlives that process, in a form that other builds can read or refuse by name.
/// </summary>
/// <remarks>
/// A stage is written before it is acted on, and what belongs to it before the stage. While the stage is <see cref="DestinationStage.Empty"/> nothing else is of
/// any importance: the guest is the source's.
/// </remarks>
public sealed class ArrivalRecord
{
    /// <summary>The form that this build writes and reads.</summary>
    public const int Version = 1;

    private const ulong Magic = 0x4c56_5252_4146_4750;
    private const int VersionAt = 8;
    private const int StageAt = 12;
    private const int IsPausedAt = 13;
    private const int HasExecutedAt = 14;
    private const int ProtocolAt = 16;
    private const int BackgroundAt = 18;
    private const int GenerationAt = 20;
    private const int LayoutBytesAt = 24;
    private const int PageCountAt = 32;
    private const int SessionAt = 40;
    private const int LayoutAt = 64;

    private readonly NativeBuffer _buffer;

    private ArrivalRecord(NativeBuffer buffer, MigrationLayout layout)
    {
        _buffer = buffer;
        Layout = layout;
        PageCount = PagesOf(layout);
    }

    /// <summary>What the guest is.</summary>
    public MigrationLayout Layout { get; }

    /// <summary>Whether the guest is here, or may be, so that what is recorded is to be gone on with.</summary>
    public bool HoldsGuest => Stage is not (DestinationStage.Empty or DestinationStage.Released);

    /// <summary>Whether the guest is this side's alone: nothing is left to do.</summary>
    public bool IsReleased => Stage == DestinationStage.Released;

    /// <summary>Whether the guest was taken out of this side, or is just being, and never runs here again.</summary>
    public bool IsExported => Stage == DestinationStage.Exported;

    /// <summary>Whose the guest is.</summary>
    internal DestinationStage Stage
    {
        get => (DestinationStage)Volatile.Read(ref At(StageAt));
        set => Volatile.Write(ref At(StageAt), (byte)value);
    }

    /// <summary>Whether the guest is known to have executed.</summary>
    internal bool HasExecuted
    {
        get => Volatile.Read(ref At(HasExecutedAt)) != 0;
        set => Volatile.Write(ref At(HasExecutedAt), value ? (byte)1 : (byte)0);
    }

    /// <summary>Whether it was to stand still.</summary>
    internal bool IsPaused => At(IsPausedAt) != 0;

    /// <summary>The version of the protocol.</summary>
    internal ushort ProtocolVersion => BinaryPrimitives.ReadUInt16LittleEndian(_buffer.Span(ProtocolAt, sizeof(ushort)));

    /// <summary>How many background connections a link has.</summary>
    internal int BackgroundConnections => BinaryPrimitives.ReadUInt16LittleEndian(_buffer.Span(BackgroundAt, sizeof(ushort)));

    /// <summary>The generation of pages that come after the switchover.</summary>
    internal uint Generation => BinaryPrimitives.ReadUInt32LittleEndian(_buffer.Span(GenerationAt, sizeof(uint)));

    /// <summary>The session's secret.</summary>
    internal SessionId Session => SessionId.Read(_buffer.Span(SessionAt, SessionId.Bytes));

    private ulong PageCount { get; }

    private int StatesAt => Page.Size;

    private int DigestsAt => StatesAt + (int)PageStates.BytesFor(PageCount);

    /// <summary>How long the buffer for a guest has to be.</summary>
    /// <param name="layout">The guest.</param>
    /// <returns>Bytes; a page multiple.</returns>
    public static ulong BytesFor(MigrationLayout layout)
    {
        ulong pages = PagesOf(layout);
        ulong bytes = Page.Size + PageStates.BytesFor(pages) + (layout.Validate ? pages * sizeof(ulong) : 0);
        return (bytes + Page.Size - 1) / Page.Size * Page.Size;
    }

    /// <summary>Begins to record the arrival of a guest.</summary>
    /// <param name="buffer">As long as <see cref="BytesFor"/> says, all of it 0; it outlives the record.</param>
    /// <param name="layout">The guest.</param>
    /// <returns>The record.</returns>
    /// <exception cref="ArgumentException">The buffer is too short.</exception>
    public static ArrivalRecord Begin(NativeBuffer buffer, MigrationLayout layout)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan((ulong)buffer.Length, BytesFor(layout), nameof(buffer));
        byte[] bytes = layout.Serialize();
        Span<byte> head = buffer.Span(0, Page.Size);
        BinaryPrimitives.WriteUInt64LittleEndian(head, Magic);
        BinaryPrimitives.WriteInt32LittleEndian(head[VersionAt..], Version);
        BinaryPrimitives.WriteInt32LittleEndian(head[LayoutBytesAt..], bytes.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(head[PageCountAt..], PagesOf(layout));
        bytes.CopyTo(head[LayoutAt..]);
        return new ArrivalRecord(buffer, layout);
    }

    /// <summary>Reads what was recorded, by this build or another.</summary>
    /// <param name="buffer">The buffer; it outlives the record.</param>
    /// <returns>The record.</returns>
    /// <exception cref="InvalidDataException">It is none, is of a form that is unknown here, or is damaged; the message says which.</exception>
    public static ArrivalRecord Open(NativeBuffer buffer)
    {
        ReadOnlySpan<byte> head = buffer.Span(0, Math.Min(buffer.Length, Page.Size));
        if (head.Length < Page.Size || BinaryPrimitives.ReadUInt64LittleEndian(head) != Magic)
        {
            throw new InvalidDataException("What the engine before left is no record of an arrival.");
        }

        int version = BinaryPrimitives.ReadInt32LittleEndian(head[VersionAt..]);
        if (version != Version)
        {
            throw new InvalidDataException($"What the engine before left is a record of version {version}; this build knows version {Version}. Go back to the build that wrote it.");
        }

        int layoutBytes = BinaryPrimitives.ReadInt32LittleEndian(head[LayoutBytesAt..]);
        if (layoutBytes is < 0 or > MigrationLayout.MostBytes)
        {
            throw Damaged($"its layout has {layoutBytes} bytes");
        }

        MigrationLayout layout;
        try
        {
            layout = MigrationLayout.Deserialize(head.Slice(LayoutAt, layoutBytes));
        }
        catch (ProtocolException e)
        {
            throw Damaged(e.Message);
        }

        var record = new ArrivalRecord(buffer, layout);
        bool isWhole = (ulong)buffer.Length >= BytesFor(layout)
            && BinaryPrimitives.ReadUInt64LittleEndian(head[PageCountAt..]) == record.PageCount
            && Enum.IsDefined(record.Stage)
            && (!record.HoldsGuest || (record.BackgroundConnections is > 0 and <= MigrationOptions.MostConnections && record.Generation > 0 && !record.Session.IsNone));
        return isWhole ? record : throw Damaged($"stage {(int)record.Stage} with {record.BackgroundConnections} connections in {buffer.Length} bytes");
    }

    /// <summary>The page states in the buffer.</summary>
    /// <returns>The states.</returns>
    public PageStates States() => new(PageCount, _buffer, StatesAt);

    /// <summary>What this side has of a guest that is taken out of it: <see cref="IsExported"/>.</summary>
    /// <param name="state">Its machine state, saved since it was stopped.</param>
    /// <returns>That, beside its memory; the page states are those in the buffer.</returns>
    public GuestHalf Half(ReadOnlyMemory<byte> state) => new(Layout, Session.Digest, Generation, IsPaused, state, States());

    /// <summary>The digests of what arrived, in the buffer; null unless the source asked for them.</summary>
    internal ReceivedDigests? Digests() => Layout.Validate ? new ReceivedDigests(PageCount, _buffer, DigestsAt) : null;

    /// <summary>The guest could run from now on: what a later stage needs. The stage itself follows.</summary>
    internal void Load(SessionId session, ushort protocolVersion, int backgroundConnections, uint generation, bool isPaused)
    {
        session.Write(_buffer.Span(SessionAt, SessionId.Bytes));
        BinaryPrimitives.WriteUInt16LittleEndian(_buffer.Span(ProtocolAt, sizeof(ushort)), protocolVersion);
        BinaryPrimitives.WriteUInt16LittleEndian(_buffer.Span(BackgroundAt, sizeof(ushort)), (ushort)backgroundConnections);
        BinaryPrimitives.WriteUInt32LittleEndian(_buffer.Span(GenerationAt, sizeof(uint)), generation);
        At(IsPausedAt) = isPaused ? (byte)1 : (byte)0;
    }

    private static ulong PagesOf(MigrationLayout layout) => layout.Regions.Aggregate(0UL, (pages, region) => pages + (region.Length / Page.Size));

    private static InvalidDataException Damaged(string how) => new($"What the engine before left is damaged: {how}");

    private ref byte At(int offset) => ref _buffer.Span(offset, 1)[0];
}
