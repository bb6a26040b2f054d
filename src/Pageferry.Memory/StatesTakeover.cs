using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Makes the page states that a dead engine left true again, by what the kernel has of the pages. The guest may run meanwhile; nobody places, and what it touches
/// that is missing waits.
/// </summary>
internal sealed class StatesTakeover(GuestMemory memory, PageStates states)
{
    private const ulong PagesPerLook = 512;

    private readonly byte[] _resident = new byte[PagesPerLook];

    /// <summary>Pages that were placed, and of which the dead engine had not noted it.</summary>
    internal long Placed { get; private set; }

    /// <summary>Pages that are whole by their state and have no content: the guest stalls on them.</summary>
    internal long Lost { get; private set; }

    /// <summary>Takes the states over.</summary>
    /// <returns>How many pages are absent.</returns>
    /// <exception cref="InvalidOperationException">The states are none that an engine leaves while its guest runs.</exception>
    internal ulong Run()
    {
        if (states.HasUnknown())
        {
            throw new InvalidOperationException("The page states that the engine before left have values that this build does not know: a newer build left them, or they are damaged.");
        }

        // Armed in the midst of it: only before a guest runs, and then nothing is taken over.
        if (states.Replace(0, states.PageCount, PageState.Arming, PageState.Arming) != 0)
        {
            throw new InvalidOperationException("The engine before left pages that were being armed, which is not done while a guest runs.");
        }

        // What another process has can't be asked here. A page that was placed and not noted is refused when it comes again, and every removal is told (ForeignRecord).
        if (memory.FaultPages == 1 && memory.HasHostView)
        {
            for (ulong page = 0; page < states.PageCount; page += PagesPerLook)
            {
                Compare(page, Math.Min(PagesPerLook, states.PageCount - page));
            }
        }

        // Who waits touches its page again. What arrived and was not placed is asked for again: it was in the dead engine's memory, not in the guest's.
        _ = states.Replace(0, states.PageCount, PageState.Requested, PageState.Absent);
        _ = states.Replace(0, states.PageCount, PageState.Arriving, PageState.Absent);
        _ = states.Replace(0, states.PageCount, PageState.ArrivingRemoved, PageState.Removed);
        return states.Replace(0, states.PageCount, PageState.Absent, PageState.Absent);
    }

    private void Compare(ulong first, ulong count)
    {
        Span<byte> resident = _resident.AsSpan(0, (int)count);
        PageMap.InCore(memory.SecondView!.Address + (first * Page.Size), resident);
        for (ulong i = 0; i < count; i++)
        {
            ulong page = first + i;
            bool isResident = (resident[(int)i] & 1) != 0;
            switch (states[page])
            {
                // UFFDIO_COPY puts a page into the file whole or not at all.
                case PageState.Arriving when isResident || HasContent(page):
                    _ = states.Change(page, PageState.Arriving, PageState.Present);
                    Placed++;
                    break;

                // What is there was never placed, so the guest has not seen it; it would keep the page's content out.
                case PageState.Absent or PageState.Requested when isResident:
                    memory.DropContent(page, 1);
                    break;

                case PageState.Present when !isResident && !HasContent(page):
                    Lost++;
                    break;
            }
        }
    }

    /// <summary>Whether the file has the page, in memory or swapped out.</summary>
    private bool HasContent(ulong page) => memory.NextContent(page) == page;
}
