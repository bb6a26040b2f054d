using Microsoft.Extensions.Logging;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>
/// The userfault attribute of a guest that runs in this process, as its control socket sets it: an armed page that the guest touches is given back as it is.
/// </summary>
/// <remarks>
/// The memory is registered for userfaults from the first arming to <see cref="End"/>. But for the counts, one thread at a time.
/// </remarks>
/// <param name="delivery">How userfaults are to arrive.</param>
/// <param name="logger">Hears of failures.</param>
internal sealed class GuestArming(FaultDelivery delivery, ILogger logger)
{
    private volatile FaultEngine? _engine;

    /// <summary>Pages that are armed now; null where nothing was ever armed.</summary>
    internal ulong? ArmedPages => (ulong?)_engine?.UnknownPages;

    /// <summary>Userfaults that were answered; null where nothing was ever armed.</summary>
    internal long? Userfaults => _engine?.Statistics is { } statistics ? statistics.FaultsBy(FaultCause.Demand) + statistics.FaultsBy(FaultCause.Arriving) : null;

    /// <summary>Arms ranges.</summary>
    /// <param name="machine">The guest.</param>
    /// <param name="pause">Has it stand still meanwhile.</param>
    /// <param name="request">Which ranges, and how.</param>
    /// <returns>How many pages are armed.</returns>
    /// <exception cref="CommandException">It can't be done; no range has changed but one that the kernel gave up in the midst of.</exception>
    internal ArmingReport Arm(IMachine machine, GuestPause pause, ControlRequest request)
    {
        UserfaultSemantics semantics = SemanticsWord.Parse(request.Semantics);
        if (semantics == UserfaultSemantics.FirstAccess && request.Content is not null)
        {
            throw new CommandException($"Content is kept or dropped with {SemanticsWord.AnyAccess}: what {SemanticsWord.FirstAccess} arms has none. Leave it out.");
        }

        ArmedContent content = ContentWord.Parse(request.Content);
        IReadOnlyList<GuestRange> ranges = RangesOf(machine.Memory, request.Ranges);
        ulong pages = 0;
        ulong accessible = 0;
        try
        {
            FaultEngine engine = Begin(machine, pause);
            foreach (GuestRange range in ranges)
            {
                accessible += engine.Arm(range.Gpa, range.Length, semantics, content);
                pages += range.Length / Page.Size;
            }
        }
        catch (Exception refusal) when (refusal is LinuxException or ArgumentException)
        {
            throw new CommandException($"Could not arm memory of the guest: {refusal.Message}");
        }

        return new ArmingReport { PagesArmed = pages - accessible, PagesAccessible = accessible };
    }

    /// <summary>Disarms ranges.</summary>
    /// <param name="machine">The guest.</param>
    /// <param name="request">Which ranges.</param>
    /// <returns>How many pages were armed.</returns>
    /// <exception cref="CommandException">A range is none of the guest's memory; nothing has changed.</exception>
    internal ArmingReport Disarm(IMachine machine, ControlRequest request)
    {
        ulong pages = 0;
        foreach (GuestRange range in RangesOf(machine.Memory, request.Ranges))
        {
            pages += _engine?.Disarm(range.Gpa, range.Length) ?? 0;
        }

        return new ArmingReport { PagesDisarmed = pages };
    }

    /// <summary>Disarms all and unregisters the memory, for whoever else needs it.</summary>
    /// <param name="machine">The guest.</param>
    /// <param name="pause">Has it stand still meanwhile.</param>
    /// <exception cref="LinuxException">The kernel can't give the content of pages back; they stay armed.</exception>
    internal void End(IMachine machine, GuestPause pause)
    {
        if (_engine is not { } engine)
        {
            return;
        }

        pause.WhileStill(() =>
        {
            engine.Stop();
            machine.Memory.Unregister();
            machine.Engine = null;
            _engine = null;
            engine.Dispose();
        });
    }

    private static List<GuestRange> RangesOf(GuestMemory memory, IReadOnlyList<string>? texts)
    {
        if (texts is null or [])
        {
            return [.. memory.Regions.Select(region => new GuestRange(region.Gpa, region.Length))];
        }

        var ranges = new List<GuestRange>();
        foreach (string text in texts)
        {
            if (!GuestRange.TryParse(text, out GuestRange range, out string error))
            {
                throw new CommandException(error);
            }

            if (range.Gpa % memory.FaultSize != 0 || range.Length % memory.FaultSize != 0)
            {
                throw new CommandException($"The range {range} is not one of whole pages: {BackingWord.Of(memory.Backing)} memory is armed in units of {memory.FaultSize} bytes.");
            }

            if (!memory.Regions.Any(region => range.Gpa - region.Gpa < region.Length && range.Length <= region.End - range.Gpa))
            {
                throw new CommandException($"The range {range} is not within the guest's memory: {string.Join(", ", memory.Regions.Select(region => new GuestRange(region.Gpa, region.Length)))}.");
            }

            ranges.Add(range);
        }

        return Union(ranges);
    }

    /// <summary>The same pages, each in one range.</summary>
    private static List<GuestRange> Union(List<GuestRange> ranges)
    {
        var union = new List<GuestRange>();
        foreach (GuestRange range in ranges.OrderBy(static range => range.Gpa))
        {
            if (union.Count > 0 && range.Gpa < union[^1].End)
            {
                union[^1] = union[^1] with { Length = Math.Max(union[^1].End, range.End) - union[^1].Gpa };
            }
            else
            {
                union.Add(range);
            }
        }

        return union;
    }

    private FaultEngine Begin(IMachine machine, GuestPause pause)
    {
        if (_engine is { } begun)
        {
            return begun;
        }

        var engine = new FaultEngine(machine.Memory, logger, delivery);
        FaultEngine? before = machine.Engine;
        pause.WhileStill(() =>
        {
            try
            {
                machine.Engine = engine;
                engine.Start(new KeptPages(engine), armed: false);
            }
            catch
            {
                machine.Engine = before;
                engine.Dispose();
                throw;
            }
        });

        // The engine that the guest arrived with has ended.
        before?.Dispose();
        _engine = engine;
        return engine;
    }
}
