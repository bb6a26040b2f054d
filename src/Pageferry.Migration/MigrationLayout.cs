using System.Buffers.Binary;
using System.Text;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What a destination has to know to make room for a guest.</summary>
/// <param name="GuestId">Tells guests apart, so that one is not migrated to itself.</param>
/// <param name="MachineKind">What the machine state is for; opaque to the protocol, up to 64 bytes of UTF-8 without control characters.</param>
/// <param name="Backing">What the source's memory is made of.</param>
/// <param name="Regions">The guest's memory.</param>
/// <param name="Validate">Whether the source wants the digests of all pages at the end.</param>
public sealed record MigrationLayout(Guid GuestId, string MachineKind, GuestBacking Backing, IReadOnlyList<GuestRegion> Regions, bool Validate = false)
{
    /// <summary>The most bytes of a layout message.</summary>
    internal const int MostBytes = HeaderBytes + MostKindBytes + (GuestMemory.MaxRegions * RegionBytes);

    private const int HeaderBytes = 32;
    private const int RegionBytes = 16;
    private const int MostKindBytes = 64;
    private const uint ValidateFlag = 1;

    /// <summary>The most pages a guest may have: 16 TiB.</summary>
    private const ulong MostPages = 1UL << 32;

    internal byte[] Serialize()
    {
        byte[] kind = Encoding.UTF8.GetBytes(MachineKind);
        if (kind.Length > MostKindBytes)
        {
            throw new ArgumentException($"A machine kind has up to {MostKindBytes} bytes, not {kind.Length}.");
        }

        var bytes = new byte[HeaderBytes + kind.Length + (Regions.Count * RegionBytes)];
        _ = GuestId.TryWriteBytes(bytes);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(16), Page.Size);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(20), (ushort)Backing);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(22), (ushort)kind.Length);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(24), Regions.Count);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(28), Validate ? ValidateFlag : 0);
        kind.CopyTo(bytes, HeaderBytes);
        Span<byte> rest = bytes.AsSpan(HeaderBytes + kind.Length);
        foreach (GuestRegion region in Regions)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(rest, region.Gpa);
            BinaryPrimitives.WriteUInt64LittleEndian(rest[8..], region.Length);
            rest = rest[RegionBytes..];
        }

        return bytes;
    }

    internal static MigrationLayout Deserialize(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < HeaderBytes)
        {
            throw new ProtocolException($"A layout has at least {HeaderBytes} bytes, not {bytes.Length}.");
        }

        int pageSize = BinaryPrimitives.ReadInt32LittleEndian(bytes[16..]);
        var backing = (GuestBacking)BinaryPrimitives.ReadUInt16LittleEndian(bytes[20..]);
        int kindBytes = BinaryPrimitives.ReadUInt16LittleEndian(bytes[22..]);
        int count = BinaryPrimitives.ReadInt32LittleEndian(bytes[24..]);
        if (pageSize != Page.Size || !Enum.IsDefined(backing))
        {
            throw new ProtocolException($"The layout has pages of {pageSize} bytes and backing {(int)backing}; pages of {Page.Size} bytes and the backings {string.Join(", ", Enum.GetNames<GuestBacking>())} are known here.");
        }

        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(bytes[28..]);
        if ((flags & ~ValidateFlag) != 0)
        {
            throw new ProtocolException($"The layout has the unknown flags 0x{flags:x}.");
        }

        if (kindBytes > MostKindBytes || count is < 1 or > GuestMemory.MaxRegions || bytes.Length != HeaderBytes + kindBytes + (count * RegionBytes))
        {
            throw new ProtocolException($"The layout states {kindBytes} bytes of machine kind and {count} regions in {bytes.Length} bytes.");
        }

        string kind = Encoding.UTF8.GetString(bytes.Slice(HeaderBytes, kindBytes));
        if (kind.Any(char.IsControl))
        {
            // It is told to people, on terminals.
            throw new ProtocolException("The layout's machine kind has control characters.");
        }

        ReadOnlySpan<byte> rest = bytes[(HeaderBytes + kindBytes)..];
        var regions = new GuestRegion[count];
        ulong end = 0;
        ulong pages = 0;
        for (int i = 0; i < count; i++)
        {
            var region = new GuestRegion(BinaryPrimitives.ReadUInt64LittleEndian(rest), BinaryPrimitives.ReadUInt64LittleEndian(rest[8..]));
            if (region.Length == 0 || region.Gpa % Page.Size != 0 || region.Length % Page.Size != 0 || region.Gpa < end || region.Gpa > ulong.MaxValue - region.Length)
            {
                throw new ProtocolException($"The layout's region {i} of {region.Length} bytes at 0x{region.Gpa:x} is empty, unaligned, out of order or overlapping.");
            }

            regions[i] = region;
            end = region.End;
            pages += region.Length / Page.Size;
            rest = rest[RegionBytes..];
        }

        return pages <= MostPages
            ? new MigrationLayout(new Guid(bytes[..16]), kind, backing, regions, flags == ValidateFlag)
            : throw new ProtocolException($"The layout has {pages} pages; up to {MostPages} are allowed.");
    }
}
