using System.Text;
using Pageferry.Criu;
using Pageferry.Criu.Tests;
using Pageferry.Kvm;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Snapshots;
using Pageferry.Vmm;

namespace Pageferry.Fuzz;

/// <summary>Messages that are as they should be: what the stored corpus was made of.</summary>
internal static class Seeds
{
    /// <summary>A stream of pages before the switchover, and one after it, on a background connection.</summary>
    private const byte Before = 1;
    private const byte Behind = 1 | 2;

    /// <summary>The start of a TLS 1.3 client's hello.</summary>
    private static readonly byte[] s_clientHello = [0x16, 3, 1, 0, 0x2F, 1, 0, 0, 0x2B, 3, 3, .. new byte[32], 0, 0, 2, 0x13, 1, 1, 0, 0, 0];

    internal static IEnumerable<byte[]> Of(string target) => target switch
    {
        "hello" => [Written(Hello.Bytes, new Hello(new VersionRange(1, 3), ConnectionRole.Control, 4, SessionId.None).Write), Written(Hello.Bytes, Background.Write)],
        "welcome" => [Written(Welcome.Bytes, new Welcome(new VersionRange(1, 3), 3, SessionId.Create()).Write)],
        "layout" => [Layout("kvm/x64/2", 1, validate: true), Layout("threads/x64/1", 3, validate: false)],
        "switchover" =>
        [
            new SwitchoverMessage(3, IsPaused: true, new byte[] { 1, 2, 3 }, new byte[] { 4, 5 }).Serialize(),
            new SwitchoverMessage(1, IsPaused: false, default, default).Serialize(),
        ],
        "runs" => [Runs(0, 1), Runs(5, 300), [0xFF, 0xFF, 3, 1, 0x80, 1, 0x90, 2]],
        "batch" => [Batch(5, 3, 0, 0, PageEncoding.None, 2 * Page.Size)[PeerConnection.HeaderBytes..], Batch(0, 0, 7, 0, PageEncoding.None, 0)[PeerConnection.HeaderBytes..]],
        "zeros" => [Zeros(1, 3, 1)[PeerConnection.HeaderBytes..]],
        "delta" => [Delta()],
        "lz4" => [Packed(PageEncoding.Lz4)],
        "zstd" => [Packed(PageEncoding.Zstd)],
        "pages-received" => Streams(),
        "requests-served" =>
        [
            [Behind, .. Frame(MessageType.PageRequest, [.. BitConverter.GetBytes(3UL), .. BitConverter.GetBytes(4UL)]), .. Frame(MessageType.Resend, BitConverter.GetBytes(3UL))],
            [Before, .. Frame(MessageType.Resend, BitConverter.GetBytes(5UL))],
        ],
        "digests" => [[0, .. Frame(MessageType.Digests, new byte[sizeof(ulong) * (1 + (int)FuzzTargets.Pages)])]],
        "missing" =>
        [
            [0, .. Frame(MessageType.Missing, [3, 4, 1, 2]), .. Frame(MessageType.Missing, [20, 40]), .. Frame(MessageType.Found, [(byte)FoundGuest.Running])],
            [0, .. Frame(MessageType.Found, [(byte)FoundGuest.Loaded])],
        ],
        "found" =>
        [
            [0, .. Frame(MessageType.Running, []), .. Frame(MessageType.Complete, []), .. Frame(MessageType.Found, [(byte)FoundGuest.Fenced])],
            [0, .. Frame(MessageType.Digests, new byte[sizeof(ulong) * (1 + (int)FuzzTargets.Pages)]), .. Frame(MessageType.Found, [(byte)FoundGuest.Exported])],
        ],
        "control-received" =>
        [
            [Before, .. Frame(MessageType.Discard, [3, 4, 1, 2]), .. SwitchedOver(1, 5, 1), .. Frame(MessageType.Start, [])],
            [Behind, .. SwitchedOver(2), .. Frame(MessageType.Start, []), .. Frame(MessageType.Released, [])],
            [Before, .. SwitchedOver(1), .. Frame(MessageType.Fence, [])],
            [Behind, .. SwitchedOver(2), .. Frame(MessageType.Start, []), .. Frame(MessageType.Fence, [])],
        ],
        "listener" or "listener-tls" =>
        [
            Frame(MessageType.Hello, Written(Hello.Bytes, new Hello(VersionRange.Current, ConnectionRole.Control, 1, SessionId.None).Write)),
            Frame(MessageType.Hello, Written(Hello.Bytes, Background.Write)),
            Frame(MessageType.Hello, Written(Hello.Bytes, new Hello(VersionRange.Current, ConnectionRole.Control, 1, SessionId.Create()).Write)),
            s_clientHello,
        ],
        "page-server" => [PageRequests(PageServerForm.Header24), PageRequests(PageServerForm.Header32)],
        "dump-receiver" => [Dump(PageServerForm.Header24), Dump(PageServerForm.Header32)],
        "page-server-answers" => [PageAnswers(0, mostPages: 3), PageAnswers(1, mostPages: 3), PageAnswers(1, mostPages: 2)],
        "inventory" => [TestImages.Image(ImageFile.INVENTORY_MAGIC, [TestImages.Message((1, 2), (4, 1))], isFirst: true), TestImages.Image(ImageFile.INVENTORY_MAGIC, [TestImages.Message((1, 1))])],
        "pstree" => [TestImages.Image(ImageFile.PSTREE_MAGIC, [TestImages.Message((1, 7), (2, 0), (3, 7), (4, 7), (5, 7)), TestImages.Message((1, 9), (2, 7)), TestImages.Message((1, 11), (2, 9))])],
        "mm" => [TestImages.Image(ImageFile.MM_MAGIC, [TestImages.Memory((0x1000, 0x3000), (0x3000, 0x4000), (0xffffffffff600000, 0xffffffffff601000))])],
        "pagemap" => [Pagemap(2), Pagemap(5)],
        "control" => [.. new[]
        {
            """{"command":"status"}""", """{"command":"cancel"}""",
            """{"command":"migrate","to":"127.0.0.1:4444","migration":{"mode":"auto","connections":4,"downtime_limit_ms":300}}""",
        }.Select(Encoding.UTF8.GetBytes)],
        "elf" => [Elf()],
        "snapshot" => [Snapshot(SnapshotPart.Whole), Snapshot(SnapshotPart.DestinationHalf)],
        "vcpu-state" => [VcpuStateOfKvm()],
        "machine-state" => [MachineState.Write(MachineHost.Threads, 3, [new(1, 2, [1, 2, 3]), new(4, 5, [])])],
        "arrival-record" => [Records.Arrival(LayoutOf("threads/x64/1", 1, validate: false))],
        "process-record" => [Records.OfProcess()],
        _ => throw new ArgumentException($"There is no target '{target}'.", nameof(target)),
    };

    private static Hello Background => new(VersionRange.Current, ConnectionRole.Background, 3, SessionId.Create());

    /// <summary>The number of pages is field 2 up to CRIU 4.1, and field 5 from 4.2 on.</summary>
    private static byte[] Pagemap(int countField) => TestImages.Image(
        ImageFile.PAGEMAP_MAGIC,
        [
            TestImages.Message((1, 1)),
            TestImages.Message((1, 0x10000), (countField, 3), (4, (ulong)(PagemapFlags.Present | PagemapFlags.Lazy))),
            TestImages.Message((1, 0x13000), (countField, 1 << 20), (3, 1), (4, (ulong)PagemapFlags.Lazy)),
            TestImages.Message((1, 0x7f00_0000_0000), (countField, 1)),
        ]);

    private static byte[] PageRequests(PageServerForm form) =>
    [
        .. PageServerFrame(form, new(PageServerCommand.Get, PagemapFlags.None, 2, CriuServers.Address, CriuServers.Process)),
        .. PageServerFrame(form, new(PageServerCommand.Get, PagemapFlags.None, 9, CriuServers.Address + 0x1000, CriuServers.Process)),
        .. PageServerFrame(form, new(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0)),
    ];

    private static byte[] Dump(PageServerForm form)
    {
        const ulong Id = (CriuServers.Process << 8) | 1;
        return
        [
            .. PageServerFrame(form, new(PageServerCommand.Parent, PagemapFlags.None, 0, 0, Id)),
            .. PageServerFrame(form, new(PageServerCommand.OpenWithAnswer, PagemapFlags.None, 0, 0, Id)),
            .. PageServerFrame(form, new(PageServerCommand.AddWithFlags, PagemapFlags.Present, 1, CriuServers.Address, Id)), .. new byte[Page.Size],
            .. PageServerFrame(form, new(PageServerCommand.AddWithFlags, PagemapFlags.Lazy, 7, CriuServers.Address + 0x10000, Id)),
            .. PageServerFrame(form, new(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0)),
        ];
    }

    /// <summary>Answers to what a daemon asks for, each with so many pages at most: what is left of it is asked for again.</summary>
    private static byte[] PageAnswers(byte form, int mostPages)
    {
        List<byte> input = [form];
        var asked = new Queue<(ulong Page, int Count)>(CriuAnswers.Asked);
        while (asked.TryDequeue(out (ulong Page, int Count) oldest))
        {
            int pages = Math.Min(oldest.Count, mostPages);
            input.AddRange(PageServerFrame(CriuAnswers.FormOf(form), new(PageServerCommand.AddWithFlags, PagemapFlags.Present, (ulong)pages, oldest.Page * Page.Size, TestImages.Pid)));
            for (int i = 0; i < pages; i++)
            {
                input.AddRange(Enumerable.Repeat((byte)(oldest.Page + (ulong)i + 1), Page.Size));
            }

            if (pages < oldest.Count)
            {
                asked.Enqueue((oldest.Page + (ulong)pages, oldest.Count - pages));
            }
        }

        return [.. input];
    }

    private static byte[] PageServerFrame(PageServerForm form, in PageServerMessage message)
    {
        var frame = new byte[PageServerMessage.BytesOf(form)];
        message.Write(frame, form);
        return frame;
    }

    private static byte[] Written(int bytes, SpanWriter write)
    {
        var message = new byte[bytes];
        write(message);
        return message;
    }

    private static byte[] Layout(string kind, int regions, bool validate) => LayoutOf(kind, regions, validate).Serialize();

    private static MigrationLayout LayoutOf(string kind, int regions, bool validate) => new(
        Guid.NewGuid(), kind, GuestBacking.Memfd, [.. Enumerable.Range(0, regions).Select(i => new GuestRegion((ulong)i << 32, 64UL << 20))], validate);

    private static byte[] Runs(ulong first, ulong count)
    {
        var pages = new PageBitmap(100_000);
        for (ulong at = first; at < 10_000; at += 3 * count)
        {
            pages.AddRun(at, count);
        }

        var runs = new byte[200];
        ulong from = 0;
        return runs[..RunCoding.Write(pages, ref from, runs)];
    }

    private static byte[] SwitchedOver(uint generation, params byte[] outOfDate) =>
        Frame(MessageType.Switchover, new SwitchoverMessage(generation, IsPaused: false, outOfDate, new byte[] { 1, 2, 3 }).Serialize());

    private static byte[] Frame(MessageType type, byte[] payload)
    {
        var frame = new byte[PeerConnection.HeaderBytes];
        var check = new byte[payload.Length == 0 || type < MessageType.Layout ? 0 : PeerConnection.CheckBytes];
        if (check.Length > 0)
        {
            PeerConnection.WriteCheck(check, payload);
        }

        PeerConnection.WriteHeader(frame, type, payload.Length + check.Length);
        return [.. frame, .. payload, .. check];
    }

    private static byte[] Batch(ulong first, ulong content, ulong zeros, ulong deltas, PageEncoding encoding, int unpacked, byte[]? payload = null)
    {
        payload ??= new byte[unpacked];
        var frame = new byte[PageBatch.PrologueBytes];
        new PageBatch(first, content, zeros, deltas, 1, encoding, unpacked, PageBatch.DigestOf(payload)).Write(frame, payload.Length);
        return [.. frame, .. payload];
    }

    private static byte[] Zeros(ulong first, ulong count, uint generation)
    {
        var frame = new byte[ZeroRun.FrameBytes];
        new ZeroRun(first, count, generation).Write(frame);
        return frame;
    }

    private static byte[] Delta()
    {
        var now = new byte[Page.Size];
        now[1000] = 1;
        now[4000] = 2;
        var delta = new byte[DeltaCoding.MostBytes];
        return delta[..DeltaCoding.Encode(new byte[Page.Size], now, delta)];
    }

    private static byte[] Packed(PageEncoding encoding)
    {
        using var packing = new PagePacking();
        byte[] content = [.. Enumerable.Range(0, 8192).Select(i => (byte)(i * i / 1000))];
        var packed = new byte[content.Length];
        return [.. BitConverter.GetBytes((ushort)content.Length), .. packed[..packing.Pack(encoding, content, packed)]];
    }

    private static IEnumerable<byte[]> Streams()
    {
        byte[] delta = Delta();
        byte[] packed = Packed(PageEncoding.Lz4)[sizeof(ushort)..];
        byte[] barrier = Frame(MessageType.Barrier, BitConverter.GetBytes(1));
        yield return
        [
            Before, .. Zeros(10, 20, 1), .. Batch(0, 3, 4, 0, PageEncoding.None, 2 * Page.Size),
            .. Batch(0, 3, 0, 2, PageEncoding.None, Page.Size + sizeof(ushort) + delta.Length, [.. new byte[Page.Size], .. BitConverter.GetBytes((ushort)delta.Length), .. delta]), .. barrier,
        ];
        yield return [Before, .. Batch(6, 3, 0, 0, PageEncoding.Lz4, 8192, packed), .. barrier];
        yield return [Before, .. Batch(6, 3, 0, 0, PageEncoding.Zstd, 8192, Packed(PageEncoding.Zstd)[sizeof(ushort)..]), .. barrier];
        yield return [Behind, .. Batch(0, 1, 2, 0, PageEncoding.None, Page.Size), .. Zeros(2, 62, 1), .. Frame(MessageType.BackgroundDone, [])];
    }

    /// <summary>A program of one segment.</summary>
    private static byte[] Elf()
    {
        var file = new byte[64 + 56 + 4];
        "\x7f"u8.CopyTo(file);
        "ELF"u8.CopyTo(file.AsSpan(1));
        (file[4], file[5], file[16], file[18]) = (2, 1, 2, 62);
        BitConverter.TryWriteBytes(file.AsSpan(24), BootLayout.GuestBase);
        (file[32], file[54], file[56]) = (64, 56, 1);
        file[64] = 1;
        file[64 + 8] = 120;
        BitConverter.TryWriteBytes(file.AsSpan(64 + 24), BootLayout.GuestBase);
        (file[64 + 32], file[64 + 40]) = (4, 16);
        return file;
    }

    private static byte[] Snapshot(SnapshotPart part)
    {
        string path = Path.Combine(Path.GetTempPath(), $"pageferry-seed-{Guid.NewGuid():N}");
        var header = new SnapshotHeader(part, Guid.NewGuid(), "kvm/x64/2", GuestBacking.Memfd, [new GuestRegion(0, 64UL << 20)], 7, 3, IsPaused: false);
        using (var writer = SnapshotWriter.Create(path, header, [1, 2, 3]))
        {
            writer.Write(1, [.. Enumerable.Range(0, 2 * Page.Size).Select(i => (byte)i)]);
            writer.WriteZeros(3, 10);
            writer.Write(20, [.. Enumerable.Range(0, Page.Size).Select(i => (byte)(i * 7))]);
            writer.Finish();
        }

        byte[] bytes = File.ReadAllBytes(path);
        File.Delete(path);
        return bytes;
    }

    private static byte[] VcpuStateOfKvm()
    {
        using var kvm = Kvm.Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using VirtualCpu vcpu = machine.CreateVcpu(0);
        return VcpuState.Capture(machine, vcpu).Serialize();
    }

    private delegate void SpanWriter(Span<byte> bytes);
}
