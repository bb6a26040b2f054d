using Google.Protobuf;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Which pages of a process were dumped, and where their content is: <c>pagemap-PID.img</c>.</summary>
public sealed class Pagemap
{
    private readonly PagemapEntry[] _entries;

    private Pagemap(string file, uint pagesId, PageServerForm? form, PagemapEntry[] entries)
    {
        File = file;
        PagesId = pagesId;
        Form = form;
        _entries = entries;
    }

    /// <summary>The image it was read from.</summary>
    public string File { get; }

    /// <summary>The number in the name of the pages image.</summary>
    public uint PagesId { get; }

    /// <summary>The form of the page servers that come with the CRIU that wrote this; null of a process without pages.</summary>
    public PageServerForm? Form { get; }

    /// <summary>The runs, ascending and without overlaps.</summary>
    public IReadOnlyList<PagemapEntry> Entries => _entries;

    /// <summary>How many pages the pages image has to have.</summary>
    public ulong StoredPages => _entries.Aggregate(0UL, static (sum, entry) => sum + (entry.Flags.HasFlag(PagemapFlags.Present) ? entry.PageCount : 0));

    /// <summary>Looks whether images have the pages.</summary>
    /// <exception cref="ImageException">Some were left with the dump.</exception>
    internal void CheckStored()
    {
        foreach (PagemapEntry entry in _entries)
        {
            if (entry.Flags == PagemapFlags.Lazy)
            {
                throw new ImageException(
                    File, $"tells of {entry.PageCount} pages at 0x{entry.Address:x} that were left with the dump (criu dump --lazy-pages): only its page server has them. Give lazy-pages --page-server, --address and --port.");
            }
        }
    }

    /// <exception cref="ImageException">The image makes no sense.</exception>
    internal static Pagemap Read(ImageFile image)
    {
        uint pagesId = 0;
        if (image.Next() is not { } head)
        {
            throw image.Failure("has no head.");
        }

        image.ReadFields(head, (message, field) =>
        {
            const int PagesIdField = 1;
            if (field == PagesIdField)
            {
                pagesId = message.ReadUInt32();
            }

            return field == PagesIdField;
        });
        if (pagesId == 0)
        {
            throw image.Failure("does not say which pages image is its own.");
        }

        var entries = new List<PagemapEntry>();
        PageServerForm? form = null;
        ulong end = 0;
        ulong stored = 0;
        while (image.Next() is { } message)
        {
            PagemapEntry entry = ReadEntry(image, message, stored, out PageServerForm own);
            if (form is { } other && own != other)
            {
                throw image.Failure($"counts the pages at 0x{entry.Address:x} as another version of CRIU counts those before.");
            }

            if (entry.Address < end)
            {
                throw image.Failure($"tells of the page at 0x{entry.Address:x} behind that at 0x{end - Page.Size:x}: its runs overlap or descend.");
            }

            form = own;
            end = entry.End;
            stored += entry.Flags.HasFlag(PagemapFlags.Present) ? entry.PageCount : 0;
            entries.Add(entry);
        }

        return new Pagemap(image.Path, pagesId, form, [.. entries]);
    }

    private static PagemapEntry ReadEntry(ImageFile image, CodedInputStream message, ulong stored, out PageServerForm form)
    {
        ulong address = 0;
        ulong narrow = 0;
        ulong wide = 0;
        bool isInParent = false;
        uint? flags = null;
        image.ReadFields(message, (stream, field) =>
        {
            switch (field)
            {
                case 1:
                    address = stream.ReadUInt64();
                    return true;
                case 2:
                    narrow = stream.ReadUInt32();
                    return true;
                case 3:
                    isInParent = stream.ReadBool();
                    return true;
                case 4:
                    flags = stream.ReadUInt32();
                    return true;
                case 5:
                    wide = stream.ReadUInt64();
                    return true;
                default:
                    return false;
            }
        });
        if (narrow != 0 == (wide != 0))
        {
            throw image.Failure($"does not say how many pages there are at 0x{address:x}, or says it twice.");
        }

        ulong count = narrow + wide;
        if (address % Page.Size != 0 || !UserSpace.Contains(address, count))
        {
            throw image.Failure($"tells of {count} pages at 0x{address:x}: no process has such memory.");
        }

        // Before there were flags, what is not in the parent was here.
        PagemapFlags parent = isInParent ? PagemapFlags.Parent : PagemapFlags.None;
        PagemapFlags where = flags is { } told ? (PagemapFlags)told | parent : isInParent ? parent : PagemapFlags.Present;
        if ((where & ~(PagemapFlags.Parent | PagemapFlags.Lazy | PagemapFlags.Present)) != PagemapFlags.None || where.HasFlag(PagemapFlags.Parent | PagemapFlags.Present))
        {
            throw image.Failure($"has the flags 0x{(uint)where:x} for the pages at 0x{address:x}: what they mean together is not known.");
        }

        form = narrow != 0 ? PageServerForm.Header24 : PageServerForm.Header32;
        return new PagemapEntry(address, count, where, stored);
    }
}
