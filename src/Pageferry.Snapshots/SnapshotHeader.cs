using System.Buffers.Binary;
using System.Text;
using Pageferry.Memory;

namespace Pageferry.Snapshots;

/// <summary>Of which guest a file is, and what it has of it. docs/snapshot-format.md has the bytes.</summary>
/// <param name="Part">How much of the guest it has.</param>
/// <param name="Guest">Tells guests apart.</param>
/// <param name="MachineKind">What the machine state is for; up to 64 bytes of UTF-8 without control characters.</param>
/// <param name="Backing">What the guest's memory was made of.</param>
/// <param name="Regions">The guest's memory.</param>
/// <param name="Session">Tells which migration the halves are of: a digest of its session's id, which is too short to find the id by.</param>
/// <param name="Generation">That of the pages that were sent after the switchover.</param>
/// <param name="IsPaused">Whether the guest is to stand still until somebody resumes it.</param>
public sealed record SnapshotHeader(
    SnapshotPart Part, Guid Guest, string MachineKind, GuestBacking Backing, IReadOnlyList<GuestRegion> Regions, ulong Session, uint Generation, bool IsPaused)
{
    /// <summary>The most bytes that a header has behind the file's prologue.</summary>
    internal const int MostBytes = FixedBytes + MostKindBytes + (GuestMemory.MaxRegions * RegionBytes);

    private const int FixedBytes = 36;
    private const int RegionBytes = 16;
    private const int MostKindBytes = 64;
    private const int PausedFlag = 1;

    /// <summary>16 TiB.</summary>
    private const ulong MostPages = 1UL << 32;

    /// <summary>The number of the guest's pages.</summary>
    public ulong PageCount => Regions.Aggregate(0UL, (pages, region) => pages + (region.Length / Page.Size));

    internal byte[] Serialize()
    {
        byte[] kind = Encoding.UTF8.GetBytes(MachineKind);
        var bytes = new byte[FixedBytes + kind.Length + (Regions.Count * RegionBytes)];
        bytes[0] = (byte)Part;
        bytes[1] = (byte)(IsPaused ? PausedFlag : 0);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2), (ushort)Backing);
        _ = Guest.TryWriteBytes(bytes.AsSpan(4));
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(20), Session);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(28), Generation);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(32), (ushort)kind.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(34), (ushort)Regions.Count);
        kind.CopyTo(bytes, FixedBytes);
        Span<byte> rest = bytes.AsSpan(FixedBytes + kind.Length);
        foreach (GuestRegion region in Regions)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(rest, region.Gpa);
            BinaryPrimitives.WriteUInt64LittleEndian(rest[8..], region.Length);
            rest = rest[RegionBytes..];
        }

        return bytes;
    }

    /// <exception cref="InvalidDataException">It is not a header.</exception>
    internal static SnapshotHeader Deserialize(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < FixedBytes)
        {
            throw new InvalidDataException($"the header has {bytes.Length} bytes, which is too few.");
        }

        var part = (SnapshotPart)bytes[0];
        var backing = (GuestBacking)BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..]);
        int kindBytes = BinaryPrimitives.ReadUInt16LittleEndian(bytes[32..]);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(bytes[34..]);
        if (!Enum.IsDefined(part) || !Enum.IsDefined(backing) || bytes[1] > PausedFlag)
        {
            throw new InvalidDataException($"part {bytes[0]}, flags {bytes[1]} and backing {(int)backing} are not all known here.");
        }

        if (kindBytes > MostKindBytes || count is < 1 or > GuestMemory.MaxRegions || bytes.Length != FixedBytes + kindBytes + (count * RegionBytes))
        {
            throw new InvalidDataException($"it states {kindBytes} bytes of machine kind and {count} regions in {bytes.Length} bytes.");
        }

        string kind = Encoding.UTF8.GetString(bytes.Slice(FixedBytes, kindBytes));
        if (kind.Any(char.IsControl))
        {
            // It is told to people, on terminals.
            throw new InvalidDataException("the machine kind has control characters.");
        }

        return new SnapshotHeader(
            part,
            new Guid(bytes.Slice(4, 16)),
            kind,
            backing,
            ReadRegions(bytes[(FixedBytes + kindBytes)..], count),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[20..]),
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[28..]),
            bytes[1] == PausedFlag);
    }

    private static GuestRegion[] ReadRegions(ReadOnlySpan<byte> bytes, int count)
    {
        var regions = new GuestRegion[count];
        ulong end = 0;
        ulong pages = 0;
        for (int i = 0; i < count; i++)
        {
            var region = new GuestRegion(BinaryPrimitives.ReadUInt64LittleEndian(bytes), BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]));
            if (region.Length == 0 || region.Gpa % Page.Size != 0 || region.Length % Page.Size != 0 || region.Gpa < end || region.Gpa > ulong.MaxValue - region.Length)
            {
                throw new InvalidDataException($"region {i} of {region.Length} bytes at 0x{region.Gpa:x} is empty, unaligned, out of order or overlapping.");
            }

            regions[i] = region;
            end = region.End;
            pages += region.Length / Page.Size;
            bytes = bytes[RegionBytes..];
        }

        return pages <= MostPages ? regions : throw new InvalidDataException($"it has {pages} pages; up to {MostPages} are allowed.");
    }
}
