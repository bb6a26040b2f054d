using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Tells which pages this process wrote, by the kernel's page tables: userfaultfd's write protection without messages (WP_ASYNC), and PAGEMAP_SCAN.
/// </summary>
/// <remarks>
/// <para>
/// Each of the memory's mappings has page tables of its own and is watched on its own. A page that was never written through a mapping is not told: it has
/// no content, or has it by another mapping. On huge pages a write makes all of its 4 KiB pages dirty, and so does the first read of one without content.
/// </para>
/// <para>Under KVM a guest's own writes go past these page tables as soon as KVM has the page mapped for the guest; KVM tells of those.</para>
/// </remarks>
public sealed class ScanDirtyTracker : IDirtyTracker
{
    /// <summary>Ranges that the kernel tells at a time.</summary>
    private const int MostRanges = 256;

    private readonly GuestMemory _memory;
    private readonly List<MappedRegion> _views = [];
    private readonly Userfaultfd _userfaultfd;
    private readonly PageMap _pageMap;

    /// <summary>Pages that were fetched and not rearmed since, or never rearmed: their content has not been read since their last write.</summary>
    private readonly PageBitmap _told;

    /// <summary>Pages that were found written when they were rearmed, or removed, and not fetched yet.</summary>
    private readonly PageBitmap _untold;

    /// <summary>Begins to watch.</summary>
    /// <param name="memory">The memory, whose guest view no userfaultfd has registered if it is watched.</param>
    /// <param name="hostOnly">Whether somebody else tells of the guest: the guest view is watched only where it is the host's too.</param>
    /// <exception cref="LinuxException">EINVAL: this kernel has no WP_ASYNC (Linux 6.7). EPERM: userfaultfd is refused. EBUSY: the guest view is registered.</exception>
    public ScanDirtyTracker(GuestMemory memory, bool hostOnly = false)
    {
        _memory = memory;
        _told = new PageBitmap(memory.PageCount);
        _told.AddRun(0, memory.PageCount);
        _untold = new PageBitmap(memory.PageCount);
        if (memory.SecondView is { } hostView)
        {
            _views.Add(hostView);
        }

        if (!hostOnly || _views.Count == 0)
        {
            _views.Add(memory.GuestView);
        }

        _userfaultfd = Open();
        try
        {
            foreach (MappedRegion view in _views)
            {
                _ = _userfaultfd.Register(view.Address, view.Length, UserfaultfdModes.WriteProtect);
            }

            _pageMap = PageMap.Open(Environment.ProcessId);

            // A page that has no content is not told as written: neither by the page tables nor by KVM.
            memory.Removed += _untold.AddRun;
        }
        catch
        {
            _userfaultfd.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Fetch(PageBitmap dirty)
    {
        for (ulong page = 0; page < _memory.PageCount; page += PageBitmap.PagesPerWord)
        {
            _ = dirty.AddWord(page, _untold.TakeWord(page, ulong.MaxValue));
        }

        Span<PageRange> ranges = stackalloc PageRange[MostRanges];
        foreach (MappedRegion view in _views)
        {
            ulong end = view.Address + view.Length;
            for (ulong at = view.Address; at < end;)
            {
                int found = _pageMap.Scan(at, end, new PageFilter { All = PageCategories.Written }, PageCategories.Written, ranges, out at);
                foreach (PageRange range in ranges[..found])
                {
                    (ulong page, ulong count) = PagesOf(view, range);
                    dirty.AddRun(page, count);
                    _told.AddRun(page, count);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Rearm(ulong page, ulong count)
    {
        Span<PageRange> ranges = stackalloc PageRange[MostRanges];
        foreach (MappedRegion view in _views)
        {
            ulong end = view.Address + ((page + count) * Page.Size);
            for (ulong at = view.Address + (page * Page.Size); at < end;)
            {
                int found = _pageMap.ProtectWritten(at, end, ranges, out at);
                foreach (PageRange range in ranges[..found])
                {
                    Keep(PagesOf(view, range), page, page + count);
                }
            }
        }

        for (ulong word = page; word < page + count; word += PageBitmap.PagesPerWord)
        {
            _ = _told.TakeWord(word, ulong.MaxValue);
        }
    }

    /// <summary>Ends the watching.</summary>
    public void Dispose()
    {
        _memory.Removed -= _untold.AddRun;
        _userfaultfd.Dispose();
        _pageMap.Dispose();
    }

    private static Userfaultfd Open()
    {
        const UserfaultfdFeatures Features = UserfaultfdFeatures.WriteProtectAsync | UserfaultfdFeatures.WriteProtectUnpopulated | UserfaultfdFeatures.WriteProtectHugetlbfsShmem;
        return Userfaultfd.Open(Features, userModeOnly: true);
    }

    /// <summary>Holds those of the pages found written that nobody was told of.</summary>
    private void Keep((ulong Page, ulong Count) found, ulong first, ulong end)
    {
        // A huge page is protected as a whole, also where only a part of it is rearmed.
        for (ulong page = found.Page; page < found.Page + found.Count; page++)
        {
            if (!_told[page] || page < first || page >= end)
            {
                _ = _untold.Add(page);
            }
        }
    }

    private static (ulong Page, ulong Count) PagesOf(MappedRegion view, PageRange range) =>
        ((range.Start - view.Address) / Page.Size, (range.End - range.Start) / Page.Size);
}
