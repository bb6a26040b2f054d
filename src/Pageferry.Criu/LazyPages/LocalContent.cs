using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Pages from images on this host.</summary>
internal sealed class LocalContent : IContent
{
    /// <summary>Who touches a page soon touches those behind it; in one reading they cost little more.</summary>
    private const int PagesPerFault = 16;

    /// <summary>The lanes: of who reads faults, and behind it those of who fills.</summary>
    private const int DemandLane = 0;
    private const int FirstFillLane = 1;

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

    /// <summary>A process alone has a second thread: placing takes one CPU, and who is restored waits meanwhile.</summary>
    public int Fillers => _processes.Count == 1 ? Math.Min(2, Environment.ProcessorCount) : 1;

    /// <inheritdoc/>
    public PageLane[] CreateLanes(FaultEngine engine) => [.. Enumerable.Range(0, FirstFillLane + Fillers).Select(_ => engine.CreateLane())];

    /// <inheritdoc/>
    public void Demand(LazyProcess process, ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            ulong behind = Math.Min(PagesPerFault, process.Memory.PageCount - page) - 1;
            process.Receive(page, 1 + (int)process.States.CountRun(page + 1, behind, PageState.Absent), DemandLane, _read);
        }
    }

    /// <inheritdoc/>
    public void Fill(LazyProcess process, int filler, ulong page, int count) => process.Receive(page, count, FirstFillLane + filler, _read);

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
