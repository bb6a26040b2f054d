using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Acts on what the kernel tells, or a vCPU's exit: faults, and removals of memory.</summary>
internal sealed class FaultTaking(FaultEngine engine)
{
    /// <summary>What <see cref="TakeFault"/> returns beside a number of pages.</summary>
    internal const int Answered = 0;
    internal const int OnItsWay = -1;
    internal const int NotYet = -2;
    internal const int Unplaceable = -3;

    /// <summary>Acts on one fault; with all placing locks held.</summary>
    /// <param name="page">The page that was touched.</param>
    /// <param name="hasContent">Whether guest memory has content for it; null when the fault didn't say.</param>
    /// <param name="metAt">When the fault was met, in stopwatch ticks.</param>
    /// <param name="requests">Receives the pages that have to be requested, up to <see cref="GuestMemory.FaultPages"/>.</param>
    /// <returns>
    /// How many have to be requested; <see cref="Answered"/>; <see cref="OnItsWay"/> when what it needs is; <see cref="NotYet"/> when a removal is unread, and
    /// who waits in the kernel was sent back to touch the page again; or <see cref="Unplaceable"/> when who touched it waits for ever.
    /// </returns>
    internal int TakeFault(ulong page, bool? hasContent, long metAt, Span<ulong> requests)
    {
        if (engine.IsStopped)
        {
            return Answered;
        }

        ulong first = engine.Memory.FaultPageOf(page);
        int missing = 0;
        bool waits = false;
        bool isZero = false;
        for (ulong at = first; at < first + engine.Memory.FaultPages; at++)
        {
            PageState state = engine.States[at];
            if (state == PageState.Absent)
            {
                // Noted first: from the change on, a lane may claim and place it. One that did so just now leaves another state behind.
                engine.Pending.Add(first, metAt, FaultCause.Demand);
                state = engine.States.Change(at, PageState.Absent, PageState.Requested);
            }

            switch (state)
            {
                case PageState.Absent:
                    requests[missing++] = at;
                    break;

                case PageState.Present:
                    break;

                case PageState.Zero or PageState.Removed:
                    isZero = true;
                    break;

                default:
                    // Who places or arms the page wakes this waiter too.
                    engine.Pending.Add(first, metAt, FaultCause.Arriving);
                    waits = true;
                    break;
            }
        }

        if (missing > 0 || waits)
        {
            return missing > 0 ? missing : OnItsWay;
        }

        return Show(first, isZero, hasContent, metAt);
    }

    /// <summary>Acts on a fault of another process where nothing was dumped: there it has zeros. With all placing locks held.</summary>
    internal void TakeStray(ulong address, long metAt)
    {
        if (engine.IsStopped)
        {
            return;
        }

        Userfaultfd userfaultfd = engine.Placer.Userfaultfd!;
        UserfaultfdResult result = userfaultfd.ZeroPage(address, Page.Size, UserfaultfdCopyFlags.None, out _);
        switch (result)
        {
            case UserfaultfdResult.Done:
                engine.Statistics.RecordLatency(FaultCause.Zero, Stopwatch.GetTimestamp() - metAt);
                break;

            // A change of the address space is unread, or was made since: the page is touched again where it is now, or not at all.
            case UserfaultfdResult.Retry or UserfaultfdResult.AlreadyPresent or UserfaultfdResult.NotRegistered:
                userfaultfd.Wake(address, Page.Size);
                break;

            default:
                engine.FailToPlace($"The page at 0x{address:x}", result);
                break;
        }
    }

    /// <summary>Acts on the removal of pages; with all placing locks held.</summary>
    internal void ApplyRemoval(ulong first, ulong end)
    {
        if (engine.IsOwnRemoval(first, end))
        {
            return;
        }

        // Before any of them is found removed: a lane that finds one asks whether there was a removal.
        engine.Statistics.AddRemoved((long)(end - first));
        long becameKnown = 0;
        for (ulong page = first; page < end; page++)
        {
            while (true)
            {
                PageState state = engine.States[page];
                PageState next = state == PageState.Arriving ? PageState.ArrivingRemoved : PageState.Removed;
                if (state is PageState.Removed or PageState.ArrivingRemoved or PageState.Arming || engine.States.Change(page, state, next) == state)
                {
                    becameKnown += state is PageState.Absent or PageState.Requested ? 1 : 0;
                    break;
                }
            }
        }

        engine.Placer.Forget(first, end - first);

        // Who waits for a page that was asked for touches it again and finds zeros; its content is dropped when it arrives.
        engine.SendBack(first, end - first);
        engine.AddKnown(becameKnown);
    }

    /// <summary>Answers a fault on what needs no content: it was whole, or is zero.</summary>
    private int Show(ulong first, bool isZero, bool? hasContent, long metAt)
    {
        FaultCause cause = isZero ? FaultCause.Zero : FaultCause.Present;
        UserfaultfdResult result = isZero && hasContent == false ? UserfaultfdResult.BadSource : engine.Placer.PlaceAgain(first);
        if (result == UserfaultfdResult.BadSource)
        {
            // Private memory that has content never faults as missing, so there a page that was placed is still there.
            result = isZero ? engine.Placer.PlaceZero(first) : engine.Memory.HasHostView ? result : UserfaultfdResult.AlreadyPresent;
        }

        _ = engine.Pending.TryTake(first, 1, out _, out _);
        switch (result)
        {
            case UserfaultfdResult.Done:
                MarkPresent(first, isZero);
                break;

            case UserfaultfdResult.AlreadyPresent:
                // Somebody else placed it, and EEXIST wakes nobody.
                MarkPresent(first, isZero);
                engine.Placer.Wake(first, engine.Memory.FaultPages);
                break;

            case UserfaultfdResult.Retry:
                // A removal is unread. The waiter touches the page again, and its new fault is read behind it.
                engine.Statistics.AddRetry();
                engine.Placer.Wake(first, engine.Memory.FaultPages);
                return NotYet;

            case UserfaultfdResult.NotRegistered when engine.Memory.MayVanish:
                engine.Placer.Wake(first, 1);
                break;

            case UserfaultfdResult.ProcessGone when engine.Memory.MayVanish:
                engine.LoseProcess();
                return Answered;

            case UserfaultfdResult.NoMemory when isZero:
                engine.Statistics.AddUnplaceable();
                engine.Fail(new InvalidOperationException($"Page {first} was given back, and the host has no page for it now: the kernel answered {result}. The guest stalls on it."));
                return Unplaceable;

            default:
                // The content of a whole page is gone: a hole was punched behind our back. A stall, never a page of zeros.
                engine.Statistics.AddUnplaceable();
                engine.Fail(new InvalidOperationException($"Page {first} was whole and can't be placed again: the kernel answered {result}. The guest stalls on it."));
                return Unplaceable;
        }

        engine.Statistics.RecordLatency(cause, Stopwatch.GetTimestamp() - metAt);
        return Answered;
    }

    private void MarkPresent(ulong first, bool isZero)
    {
        if (isZero)
        {
            _ = engine.States.Replace(first, engine.Memory.FaultPages, PageState.Zero, PageState.Present);
        }
    }
}
