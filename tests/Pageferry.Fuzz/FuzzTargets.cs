using System.Text.Json;
using Pageferry.Cli;
using Pageferry.Criu;
using Pageferry.Kvm;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Snapshots;
using Pageferry.Vmm;

namespace Pageferry.Fuzz;

/// <summary>Every reader of bytes that come from a peer, a client, a file or another build.</summary>
internal static class FuzzTargets
{
    /// <summary>How many pages the memory has that messages tell of.</summary>
    internal const ulong Pages = 64;

    internal static IReadOnlyList<FuzzTarget> All { get; } =
    [
        new("hello", input => _ = Hello.Read(input, VersionRange.Current, out _), typeof(ProtocolException)),
        new("welcome", input => _ = Welcome.Read(input, VersionRange.Current), typeof(ProtocolException)),
        new("layout", ReadLayout, typeof(ProtocolException)),
        new("switchover", ReadSwitchover, typeof(ProtocolException)),
        new("runs", ReadRuns, typeof(ProtocolException)),
        new("batch", ReadBatch, typeof(ProtocolException)),
        new("zeros", ReadZeros, typeof(ProtocolException)),
        new("delta", ReadDelta),
        new("lz4", input => Unpack(PageEncoding.Lz4, input)),
        new("zstd", input => Unpack(PageEncoding.Zstd, input)),
        new("pages-received", PageStream.Receive, typeof(ProtocolException)),
        new("requests-served", PageStream.Serve, typeof(ProtocolException)),
        new("digests", PageStream.Validate, typeof(ProtocolException), typeof(ValidationException)),
        new("missing", PageStream.Miss, typeof(ProtocolException)),
        new("found", PageStream.Find, typeof(ProtocolException)),
        new("control-received", ControlStream.Receive),
        new("listener", input => Strangers.Plain.Send(input)),
        new("listener-tls", input => Strangers.Secured.Send(input)),
        new("page-server", input => CriuServers.Serve(input)),
        new("dump-receiver", input => CriuServers.Receive(input)),
        new("page-server-answers", CriuAnswers.Take, typeof(PageServerException)),
        new("inventory", input => Inventory.Check(new ImageFile("fuzz", input, ImageFile.INVENTORY_MAGIC)), typeof(ImageException)),
        new("pstree", ReadProcesses, typeof(ImageException)),
        new("mm", ReadMemoryMap, typeof(ImageException)),
        new("pagemap", ReadPagemap, typeof(ImageException)),
        new("control", ReadControl, typeof(JsonException)),
        new("elf", ReadImage, typeof(InvalidDataException)),
        new("snapshot", ReadSnapshot, typeof(SnapshotException)),
        new("vcpu-state", ReadVcpuState, typeof(InvalidDataException)),
        new("machine-state", ReadMachineState, typeof(InvalidDataException)),
        new("arrival-record", Records.ReadArrival, typeof(InvalidDataException)),
        new("process-record", Records.ReadProcess, typeof(InvalidDataException)),
    ];

    /// <exception cref="InvalidOperationException">What a reader took does not hold together.</exception>
    internal static void Hold(bool condition, string what)
    {
        if (!condition)
        {
            throw new InvalidOperationException($"What was taken does not hold together: {what}.");
        }
    }

    private static void ReadLayout(byte[] input)
    {
        var layout = MigrationLayout.Deserialize(input);
        ulong end = 0;
        foreach (GuestRegion region in layout.Regions)
        {
            Hold(region.Length > 0 && region.Gpa >= end && region.End > region.Gpa, "regions ascend");
            end = region.End;
        }

        Hold(!layout.MachineKind.Any(char.IsControl), "a machine kind can be printed");
        _ = layout.Serialize();
    }

    private static void ReadSwitchover(byte[] input) =>
        Hold(SwitchoverMessage.Deserialize(input).Serialize().AsSpan().SequenceEqual(input), "a switchover is written as it was read");

    private static void ReadRuns(byte[] input)
    {
        ReadOnlySpan<byte> rest = input;
        for (ulong end = 0; !rest.IsEmpty;)
        {
            ulong before = end;
            (ulong first, ulong count) = RunCoding.Read(ref rest, ref end, 100_000);
            Hold(count > 0 && first >= before && first + count == end && end <= 100_000, "runs ascend within the memory");
        }
    }

    private static void ReadBatch(byte[] input)
    {
        if (input.Length >= PageBatch.Bytes)
        {
            var batch = PageBatch.Read(PageFrames.WithCheck(input, PageBatch.Bytes), input.Length - PageBatch.Bytes, Pages);
            ulong told = batch.Content | batch.Zeros;
            Hold(told != 0 && batch.First + (ulong)(63 - System.Numerics.BitOperations.LeadingZeroCount(told)) < Pages, "a batch is within the memory");
            Hold(batch.UnpackedBytes is >= 0 and <= PageBatch.MostPayloadBytes, "a payload fits its buffer");
        }
    }

    private static void ReadZeros(byte[] input)
    {
        if (input.Length >= ZeroRun.Bytes)
        {
            var run = ZeroRun.Read(PageFrames.WithCheck(input, ZeroRun.Bytes), Pages);
            Hold(run.Count > 0 && run.First + run.Count <= Pages, "zeros are within the memory");
        }
    }

    private static void ReadDelta(byte[] input) => _ = DeltaCoding.TryApply(input, new byte[Page.Size]);

    /// <summary>The first two bytes say how large the content is to be.</summary>
    private static void Unpack(PageEncoding encoding, byte[] input)
    {
        if (input.Length >= sizeof(ushort))
        {
            using var packing = new PagePacking();
            using var room = new NativeBuffer(ushort.MaxValue + 1);
            room.Span(0, room.Length).Fill(0xA5);
            int bytes = BitConverter.ToUInt16(input);
            _ = packing.TryUnpack(encoding, input.AsSpan(sizeof(ushort)), room.Span(0, bytes));
            Hold(!room.Span(bytes, room.Length - bytes).ContainsAnyExcept((byte)0xA5), "nothing is written behind the content");
        }
    }

    private static void ReadProcesses(byte[] input)
    {
        var known = new HashSet<int> { 0 };
        foreach (ProcessEntry process in ProcessTree.Read(new ImageFile("fuzz", input, ImageFile.PSTREE_MAGIC)))
        {
            Hold(process.Pid > 0 && known.Contains(process.ParentPid) && known.Add(process.Pid), "parents come before their children, and each process once");
        }
    }

    private static void ReadMemoryMap(byte[] input)
    {
        ulong end = 0;
        foreach (Vma vma in MemoryMap.Read(new ImageFile("fuzz", input, ImageFile.MM_MAGIC)).Vmas)
        {
            Hold(vma.Start >= end && vma.End > vma.Start && vma.Start % Page.Size == 0 && vma.End % Page.Size == 0, "mappings ascend");
            end = vma.End;
        }
    }

    private static void ReadPagemap(byte[] input)
    {
        ulong end = 0;
        ulong stored = 0;
        var map = Pagemap.Read(new ImageFile("fuzz", input, ImageFile.PAGEMAP_MAGIC));
        foreach (PagemapEntry entry in map.Entries)
        {
            Hold(entry.Address >= end && entry.End > entry.Address && UserSpace.Contains(entry.Address, entry.PageCount), "runs ascend within the address space");
            Hold(entry.FirstPage == stored, "what is stored lies one behind the other");
            stored += entry.Flags.HasFlag(PagemapFlags.Present) ? entry.PageCount : 0;
            end = entry.End;
        }

        Hold(map.PagesId != 0 && map.StoredPages == stored, "a pagemap has a pages image");
    }

    private static void ReadControl(byte[] input) => _ = JsonSerializer.Deserialize(input, CliJson.Default.ControlRequest);

    private static void ReadImage(byte[] input)
    {
        using GuestMemory memory = GuestMemory.Create(4 << 20);
        GuestImage.Elf("fuzz", input).Load(memory);
    }

    private static void ReadSnapshot(byte[] input)
    {
        using var reader = new SnapshotReader(new MemoryStream(input), "fuzz");
        ulong end = 0;
        while (reader.TryNext())
        {
            Hold(reader.Count > 0 && reader.First >= end && reader.First + reader.Count <= reader.PageCount, "pages ascend within the memory");
            end = reader.First + reader.Count;
        }
    }

    private static void ReadVcpuState(byte[] input) => _ = VcpuState.Deserialize(input).Serialize();

    private static void ReadMachineState(byte[] input)
    {
        MachineState.Vcpu[] vcpus = MachineState.Read(input, MachineHost.Threads, 2, out ulong wrong);
        Hold(MachineState.Write(MachineHost.Threads, wrong, vcpus).AsSpan().SequenceEqual(input), "a machine state is written as it was read");
    }
}
