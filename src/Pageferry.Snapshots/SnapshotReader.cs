using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Snapshots;

/// <summary>Reads a file from its beginning to its end, believing nothing that its digests don't hold.</summary>
public sealed class SnapshotReader : IDisposable
{
    private readonly Stream _stream;
    private readonly string _name;
    private byte[] _record = NewRecord();
    private long _offset;
    private ulong _pages;
    private ulong _zeros;
    private int _contentBytes;

    /// <summary>Begins to read.</summary>
    /// <param name="stream">What to read from; owned by the reader, also when this fails.</param>
    /// <param name="name">What errors call it.</param>
    /// <exception cref="SnapshotException">It is no snapshot, of another version, or damaged.</exception>
    public SnapshotReader(Stream stream, string name)
    {
        _stream = stream;
        _name = name;
        try
        {
            Header = ReadHeader();
            PageCount = Header.PageCount;
            if (ReadRecord(out int payload) != SnapshotRecord.State)
            {
                throw Wrong(0, "the machine state is not where it should be.");
            }

            State = _record.AsMemory(SnapshotForm.RecordBytes, payload);
            _record = NewRecord();
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    /// <summary>Of which guest it is.</summary>
    public SnapshotHeader Header { get; }

    /// <summary>The machine state.</summary>
    public ReadOnlyMemory<byte> State { get; }

    /// <summary>The number of the guest's pages.</summary>
    public ulong PageCount { get; }

    /// <summary>The first page of the run that <see cref="TryNext"/> came to; <see cref="PageCount"/> at the end.</summary>
    public ulong First { get; private set; }

    /// <summary>How many pages it has.</summary>
    public ulong Count { get; private set; }

    /// <summary>Their content; empty for zeros.</summary>
    public ReadOnlySpan<byte> Content => _record.AsSpan(SnapshotForm.RecordBytes + SnapshotForm.FirstPageBytes, _contentBytes);

    /// <summary>The first page behind the run.</summary>
    internal ulong End => First + Count;

    /// <summary>Opens a file.</summary>
    /// <param name="path">Where it is.</param>
    /// <returns>The reader, which the caller disposes.</returns>
    /// <exception cref="IOException">It can't be read; a <see cref="SnapshotException"/> if it is no snapshot, of another version, or damaged.</exception>
    /// <exception cref="UnauthorizedAccessException">It may not be read.</exception>
    public static SnapshotReader Open(string path) => new(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read), path);

    /// <summary>Goes on to the next run of pages, behind the one before it.</summary>
    /// <returns>False at the end, when every digest was held.</returns>
    /// <exception cref="SnapshotException">It is damaged.</exception>
    public bool TryNext()
    {
        long began = _offset;
        switch (ReadRecord(out int payload))
        {
            case SnapshotRecord.Pages when payload > SnapshotForm.FirstPageBytes && (payload - SnapshotForm.FirstPageBytes) % Page.Size == 0:
                _contentBytes = payload - SnapshotForm.FirstPageBytes;
                Take(Number(0), (ulong)_contentBytes / Page.Size, began);
                _pages += Count;
                return true;

            case SnapshotRecord.Zeros when payload == SnapshotForm.PairBytes:
                _contentBytes = 0;
                Take(Number(0), Number(1), began);
                _zeros += Count;
                return true;

            case SnapshotRecord.End when payload == SnapshotForm.PairBytes:
                if (Number(0) != _pages || Number(1) != _zeros)
                {
                    throw Wrong(began, $"it ends after {_pages} pages and {_zeros} of zeros, and states {Number(0)} and {Number(1)}.");
                }

                _contentBytes = 0;
                (First, Count) = (PageCount, 0);
                return _stream.ReadByte() < 0 ? false : throw Wrong(_offset, "bytes follow its end.");

            case SnapshotRecord kind:
                throw Wrong(began, $"a record {(int)kind} of {payload} bytes can't be there.");
        }
    }

    /// <summary>Reads all pages into a memory that is all zeros.</summary>
    /// <param name="memory">The memory, of the same regions.</param>
    /// <exception cref="SnapshotException">It is damaged, or lacks pages.</exception>
    public void ReadInto(GuestMemory memory)
    {
        ulong next = 0;
        while (TryNext())
        {
            if (First != next)
            {
                throw new SnapshotException($"Could not run {_name}: its pages {next} to {First - 1} are missing.");
            }

            next = End;
            if (_contentBytes > 0)
            {
                memory.WritePages(First, Content);
            }
        }

        if (next != PageCount)
        {
            throw new SnapshotException($"Could not run {_name}: its pages {next} to {PageCount - 1} are missing.");
        }
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _stream.Dispose();

    /// <summary>Room for the smallest record; it grows with what a file really has.</summary>
    private static byte[] NewRecord() => new byte[SnapshotForm.RecordBytes + SnapshotForm.PairBytes + SnapshotForm.DigestBytes];

    private SnapshotHeader ReadHeader()
    {
        var prologue = new byte[SnapshotForm.PrologueBytes + SnapshotHeader.MostBytes + SnapshotForm.DigestBytes];
        int bytes = _stream.ReadAtLeast(prologue.AsSpan(0, SnapshotForm.PrologueBytes), SnapshotForm.PrologueBytes, throwOnEndOfStream: false);
        if (bytes < SnapshotForm.PrologueBytes || BinaryPrimitives.ReadUInt64LittleEndian(prologue) != SnapshotForm.Magic)
        {
            throw new SnapshotException($"Could not read {_name}: it is none of the files that 'pageferry recover' writes.");
        }

        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(prologue.AsSpan(8));
        int length = BinaryPrimitives.ReadUInt16LittleEndian(prologue.AsSpan(10));
        if (version != SnapshotForm.Version || length > SnapshotHeader.MostBytes)
        {
            throw Wrong(8, $"it is of version {version} with a header of {length} bytes; this pageferry reads version {SnapshotForm.Version} with up to {SnapshotHeader.MostBytes}.");
        }

        _offset = SnapshotForm.PrologueBytes;
        Span<byte> rest = prologue.AsSpan(SnapshotForm.PrologueBytes, length + SnapshotForm.DigestBytes);
        ReadExactly(rest);
        if (SnapshotForm.DigestOf(prologue.AsSpan(0, SnapshotForm.PrologueBytes + length)) != BinaryPrimitives.ReadUInt64LittleEndian(rest[length..]))
        {
            throw Wrong(0, "the header is damaged: its digest is another.");
        }

        try
        {
            return SnapshotHeader.Deserialize(rest[..length]);
        }
        catch (InvalidDataException problem)
        {
            throw Wrong(SnapshotForm.PrologueBytes, problem.Message);
        }
    }

    private SnapshotRecord ReadRecord(out int payload)
    {
        long began = _offset;
        ReadExactly(_record.AsSpan(0, SnapshotForm.RecordBytes));
        var kind = (SnapshotRecord)BinaryPrimitives.ReadInt32LittleEndian(_record);
        payload = BinaryPrimitives.ReadInt32LittleEndian(_record.AsSpan(4));
        int most = kind switch
        {
            SnapshotRecord.State => SnapshotForm.MostStateBytes,
            SnapshotRecord.Pages => SnapshotForm.MostPagesBytes,
            SnapshotRecord.Zeros or SnapshotRecord.End => SnapshotForm.PairBytes,
            _ => -1,
        };
        if (payload < 0 || payload > most || payload > _stream.Length - _offset)
        {
            throw Wrong(began, $"a record {(int)kind} states {payload} bytes, and {Math.Max(0, _stream.Length - _offset)} follow.");
        }

        int end = SnapshotForm.RecordBytes + payload;
        if (_record.Length < end + SnapshotForm.DigestBytes)
        {
            Array.Resize(ref _record, end + SnapshotForm.DigestBytes);
        }

        ReadExactly(_record.AsSpan(SnapshotForm.RecordBytes, payload + SnapshotForm.DigestBytes));
        return SnapshotForm.DigestOf(_record.AsSpan(0, end)) == BinaryPrimitives.ReadUInt64LittleEndian(_record.AsSpan(end))
            ? kind
            : throw Wrong(began, $"a record of {payload} bytes is damaged: its digest is another.");
    }

    private ulong Number(int index) => BinaryPrimitives.ReadUInt64LittleEndian(_record.AsSpan(SnapshotForm.RecordBytes + (index * sizeof(ulong))));

    private void Take(ulong first, ulong count, long at)
    {
        if (first < End || count == 0 || count > PageCount || first > PageCount - count)
        {
            throw Wrong(at, $"{count} pages from {first} on are not behind page {End}, within {PageCount}.");
        }

        (First, Count) = (first, count);
    }

    private void ReadExactly(Span<byte> bytes)
    {
        int read = _stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
        _offset += read;
        if (read < bytes.Length)
        {
            throw Wrong(_offset, "it ends there, in the middle.");
        }
    }

    private SnapshotException Wrong(long offset, string problem) => new(_name, offset, problem);
}
