using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>Memory that vCPUs touch, with what answers their userfaults in it: one userfaultfd, if any.</summary>
internal sealed class PagingSlice : IDisposable
{
    private readonly FaultEngine? _engine;
    private readonly LocalPageSource? _source;

    /// <summary>Makes the memory and arms it, or populates it.</summary>
    /// <param name="options">What is measured.</param>
    /// <param name="gpa">Where it begins in the guest.</param>
    /// <param name="bytes">How long it is.</param>
    /// <param name="firstPage">The number of its first page, over all slices.</param>
    /// <param name="readerCpus">The CPUs of its readers; null for any.</param>
    internal PagingSlice(PagingOptions options, ulong gpa, ulong bytes, ulong firstPage, IReadOnlyList<int>? readerCpus)
    {
        Memory = MachineMemory.Create([new GuestRegion(gpa, bytes)], options.Backing);
        try
        {
            if (options.Delivery == PagingDelivery.None)
            {
                Populate(firstPage);
                return;
            }

            _engine = new FaultEngine(Memory, logger: null, options.Delivery == PagingDelivery.Exit ? FaultDelivery.Exit : FaultDelivery.Queue, options.Readers, readerCpus);
            if (options.IsMinor)
            {
                WriteBehind(_engine, firstPage);
            }

            _source = new LocalPageSource(firstPage, options.Delay);
            _engine.Start(_source);
            _source.Open(_engine, Math.Max(options.Readers, options.Vcpus));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The memory.</summary>
    internal GuestMemory Memory { get; }

    /// <summary>Answers the faults; null where there are none.</summary>
    internal FaultEngine? Engine => _engine;

    /// <summary>What the engine did; null without one.</summary>
    internal FaultStatistics? Statistics => _engine?.Statistics;

    /// <summary>Completes if faults are no longer answered.</summary>
    internal Task<Exception>? Failed => _engine?.Failed;

    /// <summary>Stops answering faults: from then on the statistics are whole.</summary>
    internal void Stop()
    {
        _engine?.Dispose();
        _source?.Dispose();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        Memory.Dispose();
    }

    /// <summary>Places every page as a background fill does, so that it is mapped in pages of the same size as those placed one by one.</summary>
    private void Populate(ulong firstPage)
    {
        using (var engine = new FaultEngine(Memory))
        using (var source = new LocalPageSource(firstPage, TimeSpan.Zero))
        {
            engine.Start(source);
            using PageLane lane = engine.CreateLane();
            for (ulong page = 0; page < Memory.PageCount;)
            {
                int count = lane.Begin(page, (int)Math.Min(PageLane.MaxPages, Memory.PageCount - page), out Span<byte> buffer);
                PagingContent.Write(firstPage + page, buffer);
                lane.Complete();
                page += (ulong)count;
            }

            if (engine.UnknownPages > 0)
            {
                throw new CommandException($"{engine.UnknownPages} of {Memory.PageCount} pages could not be placed before the measurement: {(engine.Failed.IsCompleted ? engine.Failed.Result.Message : "no reason given")}");
            }
        }

        Memory.Unregister();
    }

    /// <summary>Writes the content through the host view: the guest's mapping knows nothing of it.</summary>
    private void WriteBehind(FaultEngine engine, ulong firstPage)
    {
        for (ulong page = 0; page < Memory.PageCount; page++)
        {
            PagingContent.Write(firstPage + page, Memory.HostViewOfPages(page, 1));
            _ = engine.States.Change(page, PageState.Absent, PageState.Present);
        }
    }
}
