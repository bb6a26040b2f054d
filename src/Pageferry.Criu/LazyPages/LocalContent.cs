using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Pages from images on this host.</summary>
internal sealed class LocalContent : IContent
{
    /// <summary>Who touches a page soon touches those behind it; in one reading they cost little more.</summary>
    private const int PagesPerFault = 16;

    private readonly IReadOnlyDictionary<int, ProcessPages> _processes;

    /// <summary>Made once: a fault allocates nothing.</summary>
    private readonly PageReading _read;

    /// <summary>Takes the content of processes.</summary>
    /// <param name="processes">By their numbers; disposed with this.</param>
    internal LocalContent(IReadOnlyDictionary<int, ProcessPages> processes)
    {
        _processes = processes;
        _read = (process, page, content) => Read(_processes[process.Pid], process, page, content);
    }

    /// <inheritdoc/>
    public void Demand(LazyProcess process, ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            ulong behind = Math.Min(PagesPerFault, process.Memory.PageCount - page) - 1;
            process.Receive(page, 1 + (int)process.States.CountRun(page + 1, behind, PageState.Absent), isDemand: true, _read);
        }
    }

    /// <inheritdoc/>
    public void Fill(LazyProcess process, ulong page, int count) => process.Receive(page, count, isDemand: false, _read);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (ProcessPages pages in _processes.Values)
        {
            pages.Dispose();
        }
    }

    private static void Read(ProcessPages stored, LazyProcess process, ulong first, Span<byte> content)
    {
        while (!content.IsEmpty)
        {
            ulong address = process.Memory.GpaOf(first);
            if (!stored.TryFind(address, out PageExtent extent))
            {
                throw new PageServerException($"The images have no content for the page at 0x{address:x} of process {process.Pid}.");
            }

            // Regions that meet in number need not in address, nor extents in the file.
            ulong together = Math.Min(extent.PageCount, (ulong)content.Length / Page.Size);
            ulong inRegion = 1;
            while (inRegion < together && process.Memory.GpaOf(first + inRegion) == address + (inRegion * Page.Size))
            {
                inRegion++;
            }

            extent.File.Read(extent.FirstPage, content[..((int)inRegion * Page.Size)]);
            content = content[((int)inRegion * Page.Size)..];
            first += inRegion;
        }
    }
}
