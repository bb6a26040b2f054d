using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>The content of a process's pages, as far as images on this host have it: its own, or those that they were taken on top of.</summary>
public sealed class ProcessPages : IDisposable
{
    private readonly PageExtent[] _extents;
    private readonly PagesFile[] _files;

    private ProcessPages(PageExtent[] extents, PagesFile[] files)
    {
        _extents = extents;
        _files = files;
    }

    /// <summary>Where the content lies, ascending by address and without overlaps.</summary>
    public IReadOnlyList<PageExtent> Extents => _extents;

    /// <summary>Finds the content of a process's pages.</summary>
    /// <param name="images">The images.</param>
    /// <param name="pid">A process in them.</param>
    /// <returns>The pages, which the caller disposes.</returns>
    /// <exception cref="ImageException">An image is missing, makes no sense, or has fewer pages than its pagemap says.</exception>
    public static ProcessPages Open(ImageSet images, int pid)
    {
        var files = new List<PagesFile>();
        try
        {
            return new ProcessPages([.. Find(images, pid, files)], [.. files]);
        }
        catch
        {
            files.ForEach(file => file.Dispose());
            throw;
        }
    }

    /// <summary>Finds the content of a page, in O(log n).</summary>
    /// <param name="address">The page's address in the process.</param>
    /// <param name="extent">The run that begins with it.</param>
    /// <returns>False if the images don't have it.</returns>
    public bool TryFind(ulong address, out PageExtent extent)
    {
        int low = 0;
        for (int high = _extents.Length; low < high;)
        {
            int middle = (low + high) / 2;
            (low, high) = _extents[middle].End <= address ? (middle + 1, high) : (low, middle);
        }

        bool isFound = low < _extents.Length && _extents[low].Address <= address;
        extent = isFound ? Cut(_extents[low], address, _extents[low].End) : default;
        return isFound;
    }

    /// <summary>Closes the images.</summary>
    public void Dispose() => Array.ForEach(_files, file => file.Dispose());

    private static List<PageExtent> Find(ImageSet images, int pid, List<PagesFile> files)
    {
        Pagemap map = images.ReadPagemap(pid);
        PagesFile? own = null;
        if (map.StoredPages > 0)
        {
            own = images.OpenPages(map.PagesId);
            files.Add(own);
            if (map.StoredPages > own.PageCount)
            {
                throw new ImageException(own.Path, $"has {own.PageCount} pages, and {map.File} tells of {map.StoredPages}.");
            }
        }

        List<PageExtent> before = map.Entries.Any(entry => entry.Flags.HasFlag(PagemapFlags.Parent))
            ? Find(images.OpenParent() ?? throw new ImageException(map.File, "tells of pages in parent images, and there is no folder or link 'parent'."), pid, files)
            : [];
        var extents = new List<PageExtent>();
        int at = 0;
        foreach (PagemapEntry entry in map.Entries)
        {
            if (entry.Flags.HasFlag(PagemapFlags.Present))
            {
                extents.Add(new PageExtent(entry.Address, entry.PageCount, own!, entry.FirstPage));
            }
            else if (entry.Flags.HasFlag(PagemapFlags.Parent))
            {
                ulong covered = entry.Address;
                for (; covered < entry.End; covered = extents[^1].End)
                {
                    while (at < before.Count && before[at].End <= covered)
                    {
                        at++;
                    }

                    if (at == before.Count || before[at].Address > covered)
                    {
                        throw new ImageException(map.File, $"has the page at 0x{covered:x} in parent images that don't have it.");
                    }

                    extents.Add(Cut(before[at], covered, Math.Min(before[at].End, entry.End)));
                }
            }
        }

        return extents;
    }

    private static PageExtent Cut(PageExtent extent, ulong from, ulong end) =>
        extent with { Address = from, PageCount = (end - from) / Page.Size, FirstPage = extent.FirstPage + ((from - extent.Address) / Page.Size) };
}
