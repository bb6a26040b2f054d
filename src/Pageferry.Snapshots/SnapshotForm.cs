using System.IO.Hashing;
using Pageferry.Memory;

namespace Pageferry.Snapshots;

/// <summary>The form of a file: a prologue with the header, then records, each with a digest behind it. docs/snapshot-format.md has the bytes.</summary>
internal static class SnapshotForm
{
    internal const ulong Magic = 0x504E_5346_4547_4150; // "PAGEFSNP"
    internal const ushort Version = 1;

    /// <summary>Magic, version, length of the header.</summary>
    internal const int PrologueBytes = 12;

    /// <summary>Kind and length of the payload.</summary>
    internal const int RecordBytes = 8;

    internal const int DigestBytes = 8;

    /// <summary>A machine state of the migration protocol is no longer.</summary>
    internal const int MostStateBytes = 16 << 20;

    internal const int MostPagesPerRecord = 256;

    /// <summary>In front of the pages of a record.</summary>
    internal const int FirstPageBytes = 8;

    /// <summary>The first page and the number of a run of zeros; the numbers of pages with content and of zeros at the end.</summary>
    internal const int PairBytes = 16;

    internal const int MostPagesBytes = FirstPageBytes + (MostPagesPerRecord * Page.Size);

    /// <summary>XXH3, 64 bits, of a record's kind, length and payload.</summary>
    internal static ulong DigestOf(ReadOnlySpan<byte> bytes) => XxHash3.HashToUInt64(bytes);
}
