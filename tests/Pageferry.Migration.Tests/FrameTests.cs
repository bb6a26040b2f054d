using System.Net;
using System.Net.Sockets;
using CsCheck;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Frames made up, changed and cut: each reader takes them or parts, and never hangs or fails otherwise.</summary>
public class FrameTests
{
    private const ulong Pages = 64;

    private static readonly GuestRegion[] s_regions = [new(0, Pages * Page.Size), new(1UL << 32, Page.Size)];

    private static readonly byte[] s_layout = new MigrationLayout(Guid.NewGuid(), "test", GuestBacking.Anonymous, s_regions).Serialize();

    [Fact]
    public void A_layout_survives_its_frame()
    {
        MigrationLayout read = MigrationLayout.Deserialize(s_layout);
        Assert.Equal("test", read.MachineKind);
        Assert.Equal(GuestBacking.Anonymous, read.Backing);
        Assert.Equal(s_regions, read.Regions);
    }

    [Theory]
    [InlineData("kvm\u001b[2J")]
    [InlineData("kvm\n")]
    [InlineData("kvm\u009b2J")]
    public void A_machine_kind_that_would_work_a_terminal_is_refused(string kind)
    {
        byte[] layout = new MigrationLayout(Guid.NewGuid(), kind, GuestBacking.Memfd, s_regions).Serialize();
        Assert.DoesNotContain(Assert.Throws<ProtocolException>(() => MigrationLayout.Deserialize(layout)).Message, char.IsControl);
    }

    [Fact]
    public void A_changed_layout_is_a_layout_or_refused() =>
        Gen.Select(Gen.Int[0, s_layout.Length - 1], Gen.Byte, Gen.Int[0, s_layout.Length]).Sample((at, value, length) =>
        {
            byte[] changed = [.. s_layout];
            changed[at] = value;
            return IsLayoutOrRefused(changed) && IsLayoutOrRefused(s_layout[..length]);
        });

    [Fact]
    public void No_bytes_harm_the_layout() => Gen.Byte.Array[0, 200].Sample(IsLayoutOrRefused);

    [Fact]
    public void No_bytes_harm_the_receiver_of_pages()
    {
        Gen<byte[]> header = Gen.Select(Gen.UShort, Gen.UShort[0, 1], Gen.UInt).Select((type, flags, length) =>
            (byte[])[.. BitConverter.GetBytes((ushort)(type % 40)), .. BitConverter.GetBytes(flags), .. BitConverter.GetBytes(length % 70_000)]);
        Gen.Select(Gen.Bool, header.Array[0, 3], Gen.ULong[0, Pages + 2], Gen.ULong, Gen.Byte.Array[0, 9000]).Sample(
            (whole, headers, page, count, rest) =>
            {
                var valid = new byte[PageBatch.PrologueBytes];
                new PageBatch(page, count, 0, 0, PageEnds.Generation, PageEncoding.None, System.Numerics.BitOperations.PopCount(count) * Page.Size, 0).Write(valid, rest.Length);
                Receive([.. whole ? valid : [], .. headers.SelectMany(bytes => bytes), .. rest]);
            },
            iter: 300);
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(Pages, 1)]
    [InlineData(Pages - 1, 2)]
    [InlineData(ulong.MaxValue, 1)]
    [InlineData(1, ulong.MaxValue)]
    public void A_run_out_of_bounds_is_named(ulong page, ulong count)
    {
        var frame = new byte[ZeroRun.FrameBytes];
        new ZeroRun(page, count, PageEnds.Generation).Write(frame);
        ProtocolException failure = Assert.IsType<ProtocolException>(Receive(frame));
        Assert.Contains($"{count} zero pages from {page}", failure.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0UL, 0UL, 0UL, 0UL, 0, 0)]
    [InlineData(Pages, 1UL, 0UL, 0UL, 0, 4096)]
    [InlineData(Pages - 1, 2UL, 0UL, 0UL, 0, 4096)]
    [InlineData(0UL, 1UL, 1UL, 0UL, 0, 4096)]
    [InlineData(0UL, 1UL, 0UL, 2UL, 0, 4096)]
    [InlineData(0UL, 1UL, 0UL, 0UL, 3, 4095)]
    [InlineData(0UL, 1UL, 0UL, 0UL, 0, 4095)]
    [InlineData(0UL, 1UL, 0UL, 1UL, 0, 4097)]
    [InlineData(0UL, 1UL, 0UL, 0UL, 1, 4096)]
    public void A_batch_that_makes_no_sense_is_named(ulong first, ulong content, ulong zeros, ulong deltas, int encoding, int payload)
    {
        var frame = new byte[PageBatch.PrologueBytes];
        new PageBatch(first, content, zeros, deltas, PageEnds.Generation, (PageEncoding)encoding, payload > 4096 || encoding == 0 ? payload : 4096, 0).Write(frame, payload);
        ProtocolException failure = Assert.IsType<ProtocolException>(Receive([.. frame, .. new byte[payload]]));
        Assert.Contains("makes no sense", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_batch_survives_its_frame() =>
        Gen.Select(Gen.ULong[0, 60], Gen.ULong[1, 15], Gen.ULong[0, 15], Gen.UInt).Sample((first, told, content, generation) =>
        {
            var batch = new PageBatch(
                first, told & content, told & ~content, 0, generation, PageEncoding.None, System.Numerics.BitOperations.PopCount(told & content) * Page.Size, 0x0123_4567_89AB_CDEF);
            var frame = new byte[PageBatch.PrologueBytes];
            batch.Write(frame, batch.UnpackedBytes);
            return PageBatch.Read(frame.AsSpan(PeerConnection.HeaderBytes), batch.UnpackedBytes, Pages) == batch;
        });

    [Fact]
    public void A_damaged_frame_of_zeros_ends_the_session()
    {
        var frame = new byte[ZeroRun.FrameBytes];
        new ZeroRun(1, 2, PageEnds.Generation).Write(frame);
        frame[^9] ^= 1;
        Assert.Contains("damaged", Assert.IsType<ProtocolException>(Receive(frame)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_page_sent_twice_is_named()
    {
        byte[] frame = OnePage(5, PageEnds.Generation);
        ProtocolException failure = Assert.IsType<ProtocolException>(Receive([.. frame, .. frame]));
        Assert.Contains("from 5 twice", failure.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(2u)]
    [InlineData(uint.MaxValue)]
    public void A_page_of_another_generation_is_refused(uint generation)
    {
        ProtocolException failure = Assert.IsType<ProtocolException>(Receive(OnePage(5, generation)));
        Assert.Contains($"generation {generation} ", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_error_frame_is_told_without_its_control_characters()
    {
        byte[] text = "no\x1b[31m room\n"u8.ToArray();
        byte[] frame = [3, 0, 0, 0, (byte)text.Length, 0, 0, 0, .. text];
        Assert.Equal("The peer parted: no[31m room", Receive(frame)!.Message);
    }

    [Fact]
    public void No_bytes_harm_the_server_of_pages()
    {
        Gen.Select(Gen.UShort[30, 36], Gen.UInt[0, 80], Gen.Byte.Array[0, 100]).Sample(
            (type, length, rest) => Serve([.. BitConverter.GetBytes(type), 0, 0, .. BitConverter.GetBytes(length), .. rest]),
            iter: 300);
        Gen.Byte.Array[0, 100].Sample(Serve, iter: 300);
    }

    [Theory]
    [InlineData(Pages)]
    [InlineData(ulong.MaxValue)]
    public void A_request_out_of_bounds_is_named(ulong page)
    {
        ProtocolException failure = Assert.IsType<ProtocolException>(ServeAll([32, 0, 0, 0, 12, 0, 0, 0, .. BitConverter.GetBytes(page), .. BitConverter.GetBytes(FrameCheck.Of(BitConverter.GetBytes(page)))]));
        Assert.Contains($"page {page}", failure.Message, StringComparison.Ordinal);
    }

    private static byte[] OnePage(ulong page, uint generation)
    {
        var content = new byte[Page.Size];
        content[7] = 7;
        var frame = new byte[PageBatch.PrologueBytes];
        new PageBatch(page, 1, 0, 0, generation, PageEncoding.None, Page.Size, PageBatch.DigestOf(content)).Write(frame, Page.Size);
        return [.. frame, .. content];
    }

    private static void Serve(byte[] bytes) => Assert.True(ServeAll(bytes) is ProtocolException or EndOfStreamException or SocketException);

    private static Exception? ServeAll(byte[] bytes)
    {
        using GuestMemory memory = GuestMemory.Create(Pages * Page.Size);
        return Feed(bytes, connection => PageEnds.Serve(connection, PageEnds.Outgoing(memory)));
    }

    /// <returns>What ended the receiver; null when it took BackgroundDone.</returns>
    private static Exception? Receive(byte[] bytes)
    {
        using GuestMemory memory = GuestMemory.Create(Pages * Page.Size);
        using var engine = new FaultEngine(memory);
        engine.Start(new TestNoSource());
        Exception? end = Feed(
            bytes, connection => PageEnds.Receive(connection, PageEnds.Incoming(engine, new DemandRequester(engine.States, connection, _ => { })), ConnectionRole.Background));
        Assert.True(end is null or ProtocolException or EndOfStreamException or SocketException, $"{end}");
        Assert.False(engine.Failed.IsCompleted);
        return end;
    }

    private static Exception? Feed(byte[] bytes, Action<PeerConnection> read)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var sender = new TcpClient();
        sender.Connect((IPEndPoint)listener.LocalEndpoint);
        using var connection = new PeerConnection(listener.AcceptSocket()) { Patience = TimeSpan.FromSeconds(20) };
        sender.GetStream().Write(bytes);
        sender.Client.Shutdown(SocketShutdown.Send);
        return Record.Exception(() => read(connection));
    }

    private static bool IsLayoutOrRefused(byte[] bytes)
    {
        try
        {
            return MigrationLayout.Deserialize(bytes).Serialize().AsSpan().SequenceEqual(bytes) || bytes.Length > 0;
        }
        catch (ProtocolException)
        {
            return true;
        }
    }
}
