using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

public sealed class ArrivalRecordTests : IDisposable
{
    private static readonly MigrationLayout s_layout = new(Guid.NewGuid(), "test", GuestBacking.Memfd, [new GuestRegion(0, 1000 * Page.Size)], Validate: true);

    private readonly NativeBuffer _buffer = new((int)ArrivalRecord.BytesFor(s_layout));

    public void Dispose() => _buffer.Dispose();

    [Fact]
    public void Another_process_reads_what_was_recorded()
    {
        var session = SessionId.Create();
        var written = ArrivalRecord.Begin(_buffer, s_layout);
        Assert.False(ArrivalRecord.Open(_buffer).HoldsGuest);
        written.Load(session, 3, 2, 7, isPaused: true);
        written.Stage = DestinationStage.Started;
        written.HasExecuted = true;
        _ = written.States().Change(999, PageState.Absent, PageState.Present);

        var read = ArrivalRecord.Open(_buffer);
        Assert.Equal(s_layout.GuestId, read.Layout.GuestId);
        Assert.Equal(s_layout.Regions, read.Layout.Regions);
        Assert.True(read.HoldsGuest);
        Assert.False(read.IsReleased);
        Assert.Equal(DestinationStage.Started, read.Stage);
        Assert.True(read.Session.Matches(session));
        Assert.Equal((3, 2, 7U, true, true), (read.ProtocolVersion, read.BackgroundConnections, read.Generation, read.IsPaused, read.HasExecuted));
        Assert.Equal(PageState.Present, read.States()[999]);
    }

    [Fact]
    public void A_record_of_another_version_is_refused_by_name()
    {
        _ = ArrivalRecord.Begin(_buffer, s_layout);
        BinaryPrimitives.WriteInt32LittleEndian(_buffer.Span(8, 4), 2);
        var refusal = Assert.Throws<InvalidDataException>(() => ArrivalRecord.Open(_buffer));
        Assert.Contains("version 2", refusal.Message, StringComparison.Ordinal);
        Assert.Contains("version 1", refusal.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, 0xff)]
    [InlineData(12, 99)]
    [InlineData(18, 17)]
    [InlineData(20, 0)]
    [InlineData(25, 0xff)]
    [InlineData(32, 1)]
    public void A_record_that_is_damaged_is_refused(int at, byte value)
    {
        var record = ArrivalRecord.Begin(_buffer, s_layout);
        record.Load(SessionId.Create(), 3, 2, 7, isPaused: false);
        record.Stage = DestinationStage.Started;
        _ = ArrivalRecord.Open(_buffer);
        _buffer.Span(at, 1)[0] = value;
        _ = Assert.Throws<InvalidDataException>(() => ArrivalRecord.Open(_buffer));
    }

    [Fact]
    public void A_buffer_without_a_record_is_refused()
    {
        using var empty = new NativeBuffer(Page.Size);
        _ = Assert.Throws<InvalidDataException>(() => ArrivalRecord.Open(empty));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => ArrivalRecord.Begin(empty, s_layout));
    }
}
