using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>The pages that the destination does not have as they are: who takes a page out sends it, nobody else does.</summary>
internal sealed class OutgoingPages(GuestMemory memory)
{
    private readonly Lock _cursorLock = new();
    private ulong _cursor;
    private ulong _behindDemand = ulong.MaxValue;
    private int _demandInHand;

    internal GuestMemory Memory => memory;

    /// <summary>Pages to send.</summary>
    internal PageBitmap Pending { get; } = new(memory.PageCount);

    /// <summary>Pages that arrived damaged: what the destination has of them is not what was sent last.</summary>
    internal PageBitmap Damaged { get; } = new(memory.PageCount);

    /// <summary>Whether a page is being sent that the guest waits for: nobody begins another batch meanwhile.</summary>
    internal bool DemandInHand
    {
        get => Volatile.Read(ref _demandInHand) != 0;
        set => Volatile.Write(ref _demandInHand, value ? 1 : 0);
    }

    /// <summary>The guest waited for a page: those behind it go next.</summary>
    internal void FollowDemand(ulong page) => Volatile.Write(ref _behindDemand, page + 1);

    /// <summary>Finds what to send next: behind the last page that was asked for, else behind what was found before, round to the beginning.</summary>
    /// <param name="step">From a page found to the one behind which to go on: a power of two up to 64.</param>
    /// <returns>A page that is pending, unless somebody takes it first; the number of pages when there is none.</returns>
    internal ulong FindNext(ulong step)
    {
        lock (_cursorLock)
        {
            ulong behind = Interlocked.Exchange(ref _behindDemand, ulong.MaxValue);
            ulong page = Pending.Next(behind < memory.PageCount ? behind : _cursor, memory.PageCount);
            page = page < memory.PageCount ? page : Pending.Next(0, memory.PageCount);
            _cursor = (page & ~(step - 1)) + step;
            return page;
        }
    }
}
