using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Pages from images on this host.</summary>
internal sealed class LocalContent(IReadOnlyDictionary<int, ProcessPages> processes) : IContent
{
    /// <summary>Who touches a page soon touches those behind it; in one reading they cost little more.</summary>
    private const int PagesPerFault = 16;

    /// <inheritdoc/>
    public void Demand(LazyProcess process, ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            ulong behind = Math.Min(PagesPerFault, process.Memory.PageCount - page) - 1;
            Read(process, page, 1 + (int)process.States.CountRun(page + 1, behind, PageState.Absent), isDemand: true);
        }
    }

    /// <inheritdoc/>
    public void Fill(LazyProcess process, ulong page, int count) => Read(process, page, count, isDemand: false);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (ProcessPages pages in processes.Values)
        {
            pages.Dispose();
        }
    }

    private void Read(LazyProcess process, ulong page, int count, bool isDemand)
    {
        ProcessPages stored = processes[process.Pid];
        process.Receive(page, count, isDemand, (first, content) =>
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
        });
    }
}
