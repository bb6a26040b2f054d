using System.Buffers.Binary;
using System.Globalization;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>
/// The images that a dump leaves with a page server: for each process, and each shared memory, a pagemap and the pages. They have their names when all are complete: those of a dump before stay
/// until then. Disposing removes them unless they are.
/// </summary>
internal sealed class ReceivedImages : IDisposable
{
    /// <summary>The most images of a dump: a process tree may have thousands.</summary>
    internal const int MostImages = 1 << 16;

    /// <summary>The dump itself may write pages into the same directory, numbered from 1. CRIU's server begins here too.</summary>
    private const uint FirstPagesId = 0x10001;

    /// <summary>Ends the names of images that are not complete.</summary>
    private const string Unfinished = ".new";

    private const int KindBits = 8;
    private const uint ProcessKind = 1;
    private const uint SharedMemoryKind = 2;

    private readonly string _directory;
    private readonly List<string> _written = [];
    private readonly HashSet<string> _opened = [];
    private FileStream? _pagemap;
    private FileStream? _pages;
    private PageServerForm _form;
    private ulong _end;
    private bool _isComplete;

    /// <summary>Begins with none.</summary>
    /// <param name="directory">Where they go; it is there.</param>
    internal ReceivedImages(string directory) => _directory = directory;

    /// <summary>What the last opened image is called.</summary>
    internal string Name { get; private set; } = string.Empty;

    /// <summary>How many pages were written.</summary>
    internal ulong Pages { get; private set; }

    /// <summary>How many pagemaps were begun.</summary>
    internal int Pagemaps { get; private set; }

    /// <summary>Begins the images of a process or of shared memory.</summary>
    /// <param name="id">As the protocol has it: the id above 8 bits that say of what.</param>
    /// <param name="form">Who reads the images wants the number of pages where this form's CRIU writes it.</param>
    /// <returns>Whether its parent images are there.</returns>
    /// <exception cref="PageServerException">The id is of neither, or came before.</exception>
    /// <exception cref="IOException">A file can't be written.</exception>
    internal bool Open(ulong id, PageServerForm form)
    {
        string name = NameOf(id);
        if (!_opened.Add(name))
        {
            throw new PageServerException($"The dump sent {name} twice.");
        }

        if (Pagemaps == MostImages)
        {
            throw new PageServerException($"The dump has more than {MostImages} processes and shared memories.");
        }

        CloseFiles();
        uint pagesId = FirstPagesId + (uint)Pagemaps++;
        _pages = Create(string.Create(CultureInfo.InvariantCulture, $"pages-{pagesId}.img"));
        _pagemap = Create(name);
        _form = form;
        _end = 0;
        Name = name;
        Span<byte> magics = stackalloc byte[2 * sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(magics, ImageFile.IMG_COMMON_MAGIC);
        BinaryPrimitives.WriteUInt32LittleEndian(magics[sizeof(uint)..], ImageFile.PAGEMAP_MAGIC);
        _pagemap.Write(magics);
        WriteRecord([(1, pagesId)]);
        return HasParent(id);
    }

    /// <summary>Whether the parent images, which the link <c>parent</c> in the directory names, have a pagemap of this id.</summary>
    /// <exception cref="PageServerException">The id is of neither a process nor shared memory.</exception>
    internal bool HasParent(ulong id) => File.Exists(Path.Combine(_directory, "parent", NameOf(id)));

    /// <summary>Adds an entry to the pagemap that was opened last.</summary>
    /// <param name="entry">The entry as it came.</param>
    /// <exception cref="PageServerException">It can't be one of this pagemap.</exception>
    internal void AddEntry(in PageServerMessage entry)
    {
        if (_pagemap is null || NameOf(entry.Id) != Name)
        {
            throw new PageServerException($"The dump sent pages of {NameOf(entry.Id)} without opening it first.");
        }

        if (entry.Address % Page.Size != 0 || entry.Pages == 0 || !UserSpace.Contains(entry.Address, entry.Pages))
        {
            throw new PageServerException($"The dump sent {entry.Pages} pages at 0x{entry.Address:x} of {Name}, which is not in any address space.");
        }

        if (entry.Address < _end)
        {
            throw new PageServerException($"The dump sent pages at 0x{entry.Address:x} of {Name} after those before 0x{_end:x}: a pagemap ascends.");
        }

        if ((entry.Flags & ~(PagemapFlags.Parent | PagemapFlags.Lazy | PagemapFlags.Present)) != PagemapFlags.None || entry.Flags.HasFlag(PagemapFlags.Parent | PagemapFlags.Present))
        {
            throw new PageServerException($"The dump sent pages at 0x{entry.Address:x} of {Name} with flags 0x{(uint)entry.Flags:x}, which make no sense here.");
        }

        _end = entry.Address + (entry.Pages * Page.Size);
        WriteRecord(_form == PageServerForm.Header24
            ? [(1, entry.Address), (2, entry.Pages), (4, (ulong)entry.Flags)]
            : [(1, entry.Address), (2, 0), (4, (ulong)entry.Flags), (5, entry.Pages)]);
    }

    /// <summary>Adds to the pages of the last entry.</summary>
    /// <exception cref="IOException">The disk is full, or refuses.</exception>
    internal void AddContent(ReadOnlySpan<byte> content)
    {
        _pages!.Write(content);
        Pages += (ulong)content.Length / Page.Size;
    }

    /// <summary>All has come: the images get their names.</summary>
    /// <exception cref="IOException">The disk is full, or refuses.</exception>
    internal void Complete()
    {
        CloseFiles();
        _written.ForEach(path => File.Move(path + Unfinished, path, overwrite: true));
        _isComplete = true;
    }

    /// <summary>Looks whether an id is of a process or of shared memory.</summary>
    /// <exception cref="PageServerException">It is of neither.</exception>
    internal static void Check(ulong id) => _ = NameOf(id);

    /// <inheritdoc/>
    public void Dispose()
    {
        try
        {
            CloseFiles();
        }
        catch (IOException) when (!_isComplete)
        {
            // They are removed.
        }

        if (!_isComplete)
        {
            _written.ForEach(static path => File.Delete(path + Unfinished));
        }
    }

    private static string NameOf(ulong id) => (uint)(id & ((1 << KindBits) - 1)) switch
    {
        ProcessKind => string.Create(CultureInfo.InvariantCulture, $"pagemap-{id >> KindBits}.img"),
        SharedMemoryKind => string.Create(CultureInfo.InvariantCulture, $"pagemap-shmem-{id >> KindBits}.img"),
        uint kind => throw new PageServerException($"The dump sent something of kind {kind}, which is neither a process nor shared memory. CRIU up to 3.2 numbers them differently: use a newer one."),
    };

    private FileStream Create(string name)
    {
        string path = Path.Combine(_directory, name);
        var file = new FileStream(path + Unfinished, FileMode.Create, FileAccess.Write, FileShare.Read, bufferSize: 64 << 10);
        _written.Add(path);
        return file;
    }

    /// <summary>Writes a record of a protobuf message whose fields are all numbers.</summary>
    private void WriteRecord(ReadOnlySpan<(int Field, ulong Value)> fields)
    {
        Span<byte> record = stackalloc byte[64];
        int used = sizeof(uint);
        foreach ((int field, ulong value) in fields)
        {
            record[used++] = (byte)(field << 3);
            ulong left = value;
            for (; left >= 0x80; left >>= 7)
            {
                record[used++] = (byte)(left | 0x80);
            }

            record[used++] = (byte)left;
        }

        BinaryPrimitives.WriteUInt32LittleEndian(record, (uint)(used - sizeof(uint)));
        _pagemap!.Write(record[..used]);
    }

    private void CloseFiles()
    {
        _pagemap?.Dispose();
        _pages?.Dispose();
        _pagemap = null;
        _pages = null;
    }
}
