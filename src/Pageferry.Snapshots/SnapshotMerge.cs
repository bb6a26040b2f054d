using System.Globalization;
using System.Text;
using Pageferry.Memory;

namespace Pageferry.Snapshots;

/// <summary>
/// Makes one guest of two halves. The machine state is the destination's, which has run on. A page is the destination's if it has it, for the guest may have written
/// to it there; else the source's, which is what the destination would have been sent.
/// </summary>
public sealed class SnapshotMerge
{
    private const int MostGapsListed = 16;

    private readonly List<(ulong First, ulong Count)> _gaps = [];
    private ulong _missing;
    private ulong _reached;

    /// <summary>How many pages were gone through, from any thread.</summary>
    public ulong Reached => Volatile.Read(ref _reached);

    /// <summary>How many pages are the destination's.</summary>
    public ulong FromDestination { get; private set; }

    /// <summary>How many pages are the source's.</summary>
    public ulong FromSource { get; private set; }

    /// <summary>Merges.</summary>
    /// <param name="destinationPath">The destination's half.</param>
    /// <param name="sourcePath">The source's half.</param>
    /// <param name="outputPath">Where the guest goes; nothing is there yet.</param>
    /// <exception cref="SnapshotException">The files are no halves of one migration, are damaged, or a page is in neither.</exception>
    /// <exception cref="IOException">A file can't be read or written.</exception>
    /// <exception cref="UnauthorizedAccessException">A file may not be read or written.</exception>
    public void Run(string destinationPath, string sourcePath, string outputPath)
    {
        using var destination = SnapshotReader.Open(destinationPath);
        using var source = SnapshotReader.Open(sourcePath);
        CheckPart(destinationPath, destination.Header.Part, SnapshotPart.DestinationHalf);
        CheckPart(sourcePath, source.Header.Part, SnapshotPart.SourceHalf);
        CheckSame(destination.Header, source.Header);
        using var writer = SnapshotWriter.Create(outputPath, destination.Header with { Part = SnapshotPart.Whole }, destination.State.Span);
        Merge(destination, source, writer);
        if (_missing > 0)
        {
            throw new SnapshotException($"Could not merge {destinationPath} and {sourcePath}: {_missing} pages are in neither: {ListGaps()}. Nothing was written; such a guest would read what nobody wrote.");
        }

        writer.Finish();
    }

    private static void CheckPart(string path, SnapshotPart part, SnapshotPart due)
    {
        if (part != due)
        {
            throw new SnapshotException($"Could not merge {path}: it is {NameOf(part)}, and should be {NameOf(due)}. Give the destination's half first, then the source's.");
        }
    }

    private static string NameOf(SnapshotPart part) => part switch
    {
        SnapshotPart.SourceHalf => "a source's half",
        SnapshotPart.DestinationHalf => "a destination's half",
        _ => "a whole guest",
    };

    private static void CheckSame(SnapshotHeader destination, SnapshotHeader source)
    {
        string? different = destination.Guest != source.Guest ? $"guests: {destination.Guest} at the destination, {source.Guest} at the source"
            : destination.Session != source.Session ? "migrations of that guest: their sessions are not the same"
            : destination.Generation != source.Generation ? $"switchovers: generation {destination.Generation} at the destination, {source.Generation} at the source"
            : destination.MachineKind != source.MachineKind ? $"machines: {destination.MachineKind} at the destination, {source.MachineKind} at the source"
            : !destination.Regions.SequenceEqual(source.Regions) ? "memory layouts"
            : null;
        if (different is not null)
        {
            throw new SnapshotException($"Could not merge the two halves: they are of different {different}.");
        }
    }

    private void Merge(SnapshotReader destination, SnapshotReader source, SnapshotWriter writer)
    {
        ulong total = destination.PageCount;
        Advance(destination, 0);
        Advance(source, 0);
        for (ulong page = 0; page < total;)
        {
            bool isNewer = destination.First <= page;
            ulong end = isNewer ? destination.End : Math.Min(source.First <= page ? source.End : source.First, destination.First);
            if (isNewer || source.First <= page)
            {
                Copy(isNewer ? destination : source, page, end - page, writer);
                FromDestination += isNewer ? end - page : 0;
                FromSource += isNewer ? 0 : end - page;
            }
            else
            {
                _missing += end - page;
                _gaps.Add((page, end - page));
                if (_gaps.Count > MostGapsListed)
                {
                    _gaps.RemoveAt(MostGapsListed);
                }
            }

            page = end;
            Volatile.Write(ref _reached, page);
            Advance(destination, page);
            Advance(source, page);
        }
    }

    /// <summary>Goes on to the first run that ends behind a page; both files are so read to their ends, and all their digests held.</summary>
    private static void Advance(SnapshotReader reader, ulong page)
    {
        while (reader.End <= page && reader.First < reader.PageCount && reader.TryNext())
        {
            // Superseded.
        }
    }

    private static void Copy(SnapshotReader from, ulong page, ulong count, SnapshotWriter writer)
    {
        if (from.Content.IsEmpty)
        {
            writer.WriteZeros(page, count);
        }
        else
        {
            writer.Write(page, from.Content.Slice((int)(page - from.First) * Page.Size, (int)count * Page.Size));
        }
    }

    private string ListGaps()
    {
        var text = new StringBuilder();
        foreach ((ulong first, ulong count) in _gaps)
        {
            _ = text.Append(text.Length > 0 ? ", " : string.Empty).Append(CultureInfo.InvariantCulture, $"{first} to {first + count - 1}");
        }

        ulong listed = _gaps.Aggregate(0UL, (pages, gap) => pages + gap.Count);
        return listed < _missing ? $"{text} and {_missing - listed} more" : $"{text}";
    }
}
