using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Takes in what arrives: pages with content, and the news that pages are zero.</summary>
internal sealed class PageArrivals(FaultEngine engine)
{
    /// <summary>The fault reader waits as long as a hold lasts, some 50 µs.</summary>
    private const ulong PagesPerHold = 16;

    /// <summary>For another process's memory, which no vCPU waits for: with short holds a fifth of a daemon's CPU time went into threads that wait for each other's.</summary>
    private const ulong ForeignPagesPerHold = PageLane.MaxPages;

    private static readonly byte[] s_zeros = new byte[Page.Size];

    private readonly ulong _pagesPerHold = engine.Memory.MayVanish ? ForeignPagesPerHold : PagesPerHold;

    /// <summary>For who places without a lane.</summary>
    private readonly Lock _placing = engine.Placing.Assign();

    /// <summary>Places a run of pages that a lane claimed and filled.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <param name="content">Where the content is; null to show what guest memory has.</param>
    /// <param name="offset">Where it begins there, in bytes.</param>
    /// <param name="requested">How many of them were asked for.</param>
    /// <param name="placing">The lane's lock.</param>
    internal void PlaceClaimed(ulong page, ulong count, MappedRegion? content, ulong offset, ulong requested, Lock placing)
    {
        ulong placed = 0;
        ulong most = _pagesPerHold;
        while (placed < count)
        {
            UserfaultfdResult result;
            ulong at = page + placed;
            ulong done;
            ulong run;
            using (engine.Placing.Enter(placing))
            {
                run = engine.States.CountRun(at, Math.Min(count - placed, most), PageState.Arriving);
                if (run == 0)
                {
                    DropRemoved(at);
                    placed++;
                    continue;
                }

                result = Place(at, run, content, offset + (placed * Page.Size), out done);
                _ = engine.States.Replace(at, done, PageState.Arriving, PageState.Present);
                if (engine.Memory.FaultPages > 1)
                {
                    ShowWhole(at, done);
                }
            }

            placed += done;
            most = _pagesPerHold;
            if (done == 0 && result == UserfaultfdResult.NotRegistered && engine.Memory.MayVanish)
            {
                // Part of the run is not registered, or it is in two mappings: it is found out page by page.
                most = 1;
                placed += TryDropUnregistered(at, run, placing) ? 1UL : 0;
            }
            else if (done == 0 && !MayRetry(result, at))
            {
                return;
            }
        }

        engine.Follow(page, count);
        engine.Settle();
        RecordAnswered(page, count);
        engine.Statistics.AddArrived((long)requested, (long)(count - requested));
        engine.AddKnown((long)count);
    }

    /// <summary>Shows those pages of a run that are armed with the content they were hidden with.</summary>
    /// <returns>How many were armed.</returns>
    internal ulong Keep(ulong page, ulong count)
    {
        ulong kept = 0;
        for (ulong done = 0; done < count;)
        {
            ulong claimed = engine.States.Claim(page + done, count - done, PageState.Arriving, out ulong requested);
            if (claimed > 0)
            {
                PlaceClaimed(page + done, claimed, content: null, 0, requested, _placing);
            }

            kept += claimed;
            done += claimed != 0 ? claimed : engine.States.CountUnclaimable(page + done, count - done);
        }

        return kept;
    }

    /// <summary>Places those pages of a run that are wanted.</summary>
    /// <returns>How many were; the others are here already, or were removed.</returns>
    internal ulong Place(ulong page, ulong count, MappedRegion content, ulong offset, Lock placing)
    {
        ulong wanted = 0;
        for (ulong done = 0; done < count;)
        {
            ulong claimed = engine.States.Claim(page + done, count - done, PageState.Arriving, out ulong requested);
            if (claimed > 0)
            {
                PlaceClaimed(page + done, claimed, content, offset + (done * Page.Size), requested, placing);
            }

            wanted += claimed;
            done += claimed != 0 ? claimed : engine.States.CountUnclaimable(page + done, count - done);
        }

        return wanted;
    }

    /// <summary>Gives pages newer content, before the guest runs: those that are here are overwritten, the others placed.</summary>
    internal void Refresh(ulong page, ulong count, MappedRegion content, ulong offset, Lock placing)
    {
        engine.AddKnown(-(long)engine.States.Replace(page, count, PageState.Zero, PageState.Absent));
        for (ulong done = 0; done < count;)
        {
            ulong at = page + done;
            ulong from = offset + (done * Page.Size);
            ulong here = engine.States.CountRun(at, count - done, PageState.Present);
            if (here > 0)
            {
                engine.Memory.WritePages(at, content.Span(from, (int)here * Page.Size));
                done += here;
                continue;
            }

            ulong absent = engine.States.CountRun(at, count - done, PageState.Absent);
            done += absent > 0 && Place(at, absent, content, from, placing) == absent
                ? absent
                : throw new InvalidOperationException($"Page {at} is {engine.States[at]} and can't be refreshed: only before the guest runs, and by one lane at a time.");
        }
    }

    /// <summary>Makes pages zero, before the guest runs.</summary>
    internal void RefreshZero(ulong page, ulong count)
    {
        for (ulong done = 0; done < count;)
        {
            ulong claimed = ClaimZero(page + done, count - done);
            if (claimed == 0 && engine.States[page + done] == PageState.Present)
            {
                engine.Memory.WritePages(page + done, s_zeros);
            }

            done += Math.Max(1, claimed);
        }
    }

    /// <summary>Marks pages as zero. They are placed when touched; who waits for one of them is sent back to touch it again.</summary>
    internal ulong ClaimZero(ulong page, ulong count)
    {
        ulong claimed = engine.States.Claim(page, count, PageState.Zero, out ulong requested);
        engine.Follow(page, claimed);
        if (requested > 0)
        {
            using (engine.Placing.Enter(_placing))
            {
                engine.SendBack(page, claimed);
            }
        }

        engine.Statistics.AddZero((long)claimed);
        engine.AddKnown((long)claimed);
        return claimed;
    }

    /// <summary>Gives pages back that a lane claimed and could not fill: they are asked for again when the guest touches them again.</summary>
    internal void Abandon(ulong page, ulong count)
    {
        for (ulong i = 0; i < count; i++)
        {
            if (engine.States.Change(page + i, PageState.Arriving, PageState.Absent) == PageState.ArrivingRemoved)
            {
                _ = engine.States.Change(page + i, PageState.ArrivingRemoved, PageState.Removed);
                engine.AddKnown(1);
            }
        }

        using (engine.Placing.Enter(_placing))
        {
            engine.SendBack(page, count);
        }
    }

    private UserfaultfdResult Place(ulong page, ulong count, MappedRegion? content, ulong offset, out ulong done)
    {
        UserfaultfdResult result = UserfaultfdResult.Done;
        long bytes = (long)count * Page.Size;
        if (content is null)
        {
            result = engine.Memory.FaultPages > 1 ? result : ShowKept(page);
            bytes = result == UserfaultfdResult.Done ? engine.Memory.FaultPages > 1 ? bytes : Page.Size : 0;
        }
        else if (!engine.Memory.TryTakeHugePages(page, count))
        {
            (result, bytes) = (UserfaultfdResult.NoMemory, 0);
        }
        else if (engine.Memory.FaultPages > 1)
        {
            content.Span(offset, (int)count * Page.Size).CopyTo(engine.Memory.HostViewOfPages(page, (int)count));
        }
        else
        {
            result = engine.Placer.Place(page, count, content, offset, out bytes);
        }

        done = bytes > 0 ? (ulong)bytes / Page.Size : 0;
        if (done == 0 && result == UserfaultfdResult.AlreadyPresent)
        {
            // Somebody else placed it, and EEXIST wakes nobody.
            engine.Placer.Wake(page, 1);
            done = 1;
        }

        return result;
    }

    /// <summary>Shows the huge pages of a run that have become whole.</summary>
    private void ShowWhole(ulong page, ulong count)
    {
        for (ulong first = engine.Memory.FaultPageOf(page); first < page + count; first += engine.Memory.FaultPages)
        {
            ulong whole = 0;
            while (whole < engine.Memory.FaultPages && engine.States[first + whole] is PageState.Present or PageState.Zero or PageState.Removed)
            {
                whole++;
            }

            if (whole == engine.Memory.FaultPages)
            {
                if (ShowKept(first) != UserfaultfdResult.Done)
                {
                    engine.Placer.Wake(first, engine.Memory.FaultPages);
                }

                RecordAnswered(first, 1);
            }
        }
    }

    /// <summary>Drops what arrived of a page that was removed meanwhile, and sends who waits for it back to touch it again.</summary>
    private void DropRemoved(ulong page)
    {
        _ = engine.States.Change(page, PageState.ArrivingRemoved, PageState.Removed);
        engine.SendBack(page, 1);
    }

    /// <summary>Gives up a page that another process has no memory for any more, where faults are told.</summary>
    /// <returns>False if it was not tried alone.</returns>
    private bool TryDropUnregistered(ulong page, ulong tried, Lock placing)
    {
        if (tried > 1)
        {
            return false;
        }

        using (engine.Placing.Enter(placing))
        {
            _ = engine.States.Change(page, PageState.Arriving, PageState.Removed);
            DropRemoved(page);
        }

        return true;
    }

    private bool MayRetry(UserfaultfdResult result, ulong page)
    {
        if (result == UserfaultfdResult.Retry)
        {
            // A removal is unread: nothing can be placed before.
            engine.Statistics.AddRetry();
            FaultReader.LetRemovalsBeRead();
            return true;
        }

        engine.FailToPlace($"Page {page}", result);
        return false;
    }

    private UserfaultfdResult ShowKept(ulong page)
    {
        UserfaultfdResult result = engine.Placer.PlaceAgain(page);
        return result == UserfaultfdResult.BadSource ? engine.Placer.PlaceZero(page) : result;
    }

    private void RecordAnswered(ulong page, ulong count)
    {
        if (engine.Pending.Count == 0)
        {
            return;
        }

        long now = Stopwatch.GetTimestamp();
        while (engine.Pending.TryTake(page, count, out long metAt, out FaultCause cause))
        {
            engine.Statistics.RecordLatency(cause, now - metAt);
        }
    }
}
