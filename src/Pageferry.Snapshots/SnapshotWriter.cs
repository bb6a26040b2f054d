using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Snapshots;

/// <summary>Writes a file: header and machine state first, then pages in ascending order. It appears under its name when it is whole, or not at all.</summary>
public sealed class SnapshotWriter : IDisposable
{
    private readonly string _path;
    private readonly FileStream _file;
    private readonly byte[] _record = new byte[SnapshotForm.RecordBytes + SnapshotForm.MostPagesBytes + SnapshotForm.DigestBytes];
    private readonly ulong _pageCount;
    private ulong _end;
    private ulong _zeroFirst;
    private ulong _zeroCount;
    private ulong _pages;
    private ulong _zeros;
    private bool _isDone;

    private SnapshotWriter(string path, FileStream file, ulong pageCount)
    {
        _path = path;
        _file = file;
        _pageCount = pageCount;
    }

    /// <summary>How many pages were written so far, from any thread.</summary>
    public ulong Written => Volatile.Read(ref _pages) + Volatile.Read(ref _zeros);

    private string Temporary => _file.Name;

    /// <summary>Begins a file, which only its owner may read.</summary>
    /// <param name="path">Where it is to be; nothing is there yet.</param>
    /// <param name="header">Of which guest it is.</param>
    /// <param name="state">The machine state.</param>
    /// <returns>The writer, which the caller disposes.</returns>
    /// <exception cref="IOException">A file is there, or none can be written.</exception>
    /// <exception cref="UnauthorizedAccessException">The directory may not be written to.</exception>
    public static SnapshotWriter Create(string path, SnapshotHeader header, ReadOnlySpan<byte> state)
    {
        if (Path.Exists(path))
        {
            throw new SnapshotException($"Could not write {path}: it is there already, and was left as it is. Choose another name, or remove it.");
        }

        if (state.Length > SnapshotForm.MostStateBytes)
        {
            throw new ArgumentException($"A machine state has up to {SnapshotForm.MostStateBytes} bytes, not {state.Length}.", nameof(state));
        }

        var file = new FileStream($"{path}.{Environment.ProcessId}.tmp", new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        });
        var writer = new SnapshotWriter(path, file, header.PageCount);
        try
        {
            writer.WriteHeader(header.Serialize());
            writer.WriteState(state);
            return writer;
        }
        catch
        {
            writer.Dispose();
            throw;
        }
    }

    /// <summary>Writes what a memory has.</summary>
    /// <param name="memory">The memory, whose content does not change meanwhile.</param>
    /// <param name="states">Tells which of its pages are here; null if all are.</param>
    public void WriteMemory(GuestMemory memory, PageStates? states)
    {
        using var buffer = new NativeBuffer(SnapshotForm.MostPagesPerRecord * Page.Size);
        for (ulong page = 0; page < memory.PageCount;)
        {
            if (!IsHere(states, page))
            {
                page++;
                continue;
            }

            ulong end = page + 1;
            while (end < memory.PageCount && IsHere(states, end))
            {
                end++;
            }

            WriteRun(memory, page, end, buffer);
            page = end;
        }
    }

    /// <summary>Writes pages; those that are zero take no room.</summary>
    /// <param name="first">The first page, behind all that were written.</param>
    /// <param name="content">Their content: whole pages.</param>
    public void Write(ulong first, ReadOnlySpan<byte> content)
    {
        while (!content.IsEmpty)
        {
            bool isZero = IsZero(content);
            int bytes = Page.Size;
            while (bytes < content.Length && IsZero(content[bytes..]) == isZero)
            {
                bytes += Page.Size;
            }

            ulong count = (ulong)bytes / Page.Size;
            if (isZero)
            {
                WriteZeros(first, count);
            }
            else
            {
                WriteContent(first, content[..bytes]);
            }

            first += count;
            content = content[bytes..];
        }
    }

    /// <summary>Writes that pages are zero.</summary>
    /// <param name="first">The first page, behind all that were written.</param>
    /// <param name="count">How many.</param>
    public void WriteZeros(ulong first, ulong count)
    {
        Take(first, count);
        if (_zeroCount > 0 && _zeroFirst + _zeroCount == first)
        {
            _zeroCount += count;
            return;
        }

        FlushZeros();
        (_zeroFirst, _zeroCount) = (first, count);
    }

    /// <summary>Ends the file, and gives it its name when it is on the disk.</summary>
    /// <exception cref="IOException">It can't be written, or a file of that name came meanwhile.</exception>
    public void Finish()
    {
        FlushZeros();
        WritePair(SnapshotRecord.End, _pages, _zeros);
        _file.Flush(flushToDisk: true);
        _file.Close();
        File.Move(Temporary, _path);
        _isDone = true;
    }

    /// <summary>Closes the file; one that is not whole is removed.</summary>
    public void Dispose()
    {
        _file.Dispose();
        if (!_isDone)
        {
            File.Delete(Temporary);
        }
    }

    private static bool IsHere(PageStates? states, ulong page) => states is null || states[page] is PageState.Present or PageState.Zero or PageState.Removed;

    private static bool IsZero(ReadOnlySpan<byte> content) => !content[..Page.Size].ContainsAnyExcept((byte)0);

    private void WriteRun(GuestMemory memory, ulong page, ulong end, NativeBuffer buffer)
    {
        while (page < end)
        {
            ulong content = Math.Min(end, memory.NextContent(page));
            if (content > page)
            {
                // Reading a hole would fill it.
                WriteZeros(page, content - page);
                page = content;
                continue;
            }

            ulong count = Math.Min(Math.Min(end, memory.NextHole(page)) - page, SnapshotForm.MostPagesPerRecord);
            Span<byte> pages = buffer.Span(0, (int)count * Page.Size);
            memory.ReadPages(page, pages);
            Write(page, pages);
            page += count;
        }
    }

    private void WriteContent(ulong first, ReadOnlySpan<byte> content)
    {
        Take(first, (ulong)content.Length / Page.Size);
        FlushZeros();
        while (!content.IsEmpty)
        {
            int bytes = Math.Min(content.Length, SnapshotForm.MostPagesPerRecord * Page.Size);
            BinaryPrimitives.WriteUInt64LittleEndian(_record.AsSpan(SnapshotForm.RecordBytes), first);
            content[..bytes].CopyTo(_record.AsSpan(SnapshotForm.RecordBytes + SnapshotForm.FirstPageBytes));
            WriteRecord(SnapshotRecord.Pages, _record, SnapshotForm.FirstPageBytes + bytes);
            ulong count = (ulong)bytes / Page.Size;
            Volatile.Write(ref _pages, _pages + count);
            first += count;
            content = content[bytes..];
        }
    }

    private void Take(ulong first, ulong count)
    {
        if (first < _end || count > _pageCount || first > _pageCount - count)
        {
            throw new ArgumentOutOfRangeException(nameof(first), $"Pages {first} to {first + count} are not behind page {_end} of {_pageCount}.");
        }

        _end = first + count;
    }

    private void FlushZeros()
    {
        if (_zeroCount > 0)
        {
            WritePair(SnapshotRecord.Zeros, _zeroFirst, _zeroCount);
            Volatile.Write(ref _zeros, _zeros + _zeroCount);
            _zeroCount = 0;
        }
    }

    private void WritePair(SnapshotRecord kind, ulong first, ulong second)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(_record.AsSpan(SnapshotForm.RecordBytes), first);
        BinaryPrimitives.WriteUInt64LittleEndian(_record.AsSpan(SnapshotForm.RecordBytes + sizeof(ulong)), second);
        WriteRecord(kind, _record, SnapshotForm.PairBytes);
    }

    private void WriteHeader(byte[] header)
    {
        var bytes = new byte[SnapshotForm.PrologueBytes + header.Length + SnapshotForm.DigestBytes];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, SnapshotForm.Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(8), SnapshotForm.Version);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(10), (ushort)header.Length);
        header.CopyTo(bytes, SnapshotForm.PrologueBytes);
        int end = bytes.Length - SnapshotForm.DigestBytes;
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(end), SnapshotForm.DigestOf(bytes.AsSpan(0, end)));
        _file.Write(bytes);
    }

    private void WriteState(ReadOnlySpan<byte> state)
    {
        var record = new byte[SnapshotForm.RecordBytes + state.Length + SnapshotForm.DigestBytes];
        state.CopyTo(record.AsSpan(SnapshotForm.RecordBytes));
        WriteRecord(SnapshotRecord.State, record, state.Length);
    }

    /// <summary>Writes a record whose payload is in place.</summary>
    private void WriteRecord(SnapshotRecord kind, byte[] record, int payload)
    {
        BinaryPrimitives.WriteInt32LittleEndian(record, (int)kind);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(4), payload);
        int end = SnapshotForm.RecordBytes + payload;
        BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(end), SnapshotForm.DigestOf(record.AsSpan(0, end)));
        _file.Write(record, 0, end + SnapshotForm.DigestBytes);
    }
}
