using System.Diagnostics;

namespace Pageferry.Memory;

/// <summary>The faults that come as exits: each is resolved on the thread that met it, which waits here until its page is placed.</summary>
internal sealed class ExitFaults(FaultEngine engine)
{
    /// <summary>Nobody tells that memory whose engine has stopped is unregistered.</summary>
    private static readonly TimeSpan s_betweenLooks = TimeSpan.FromMilliseconds(1);

    /// <summary>Is pulsed when a thread that waits in <see cref="Resolve"/> has to look again.</summary>
    private readonly object _settled = new();

    /// <summary>Makes every wait in <see cref="Resolve"/> ask again whether it may go on.</summary>
    internal void InterruptWaits()
    {
        lock (_settled)
        {
            Monitor.PulseAll(_settled);
        }
    }

    /// <summary>See <see cref="FaultEngine.Resolve"/>.</summary>
    internal bool Resolve(ulong page, Func<bool> mayWait)
    {
        Span<ulong> requests = stackalloc ulong[(int)engine.Memory.FaultPages];
        long metAt = Stopwatch.GetTimestamp();
        while (!engine.IsStopped)
        {
            int missing;
            using (engine.Placing.EnterAll())
            {
                missing = engine.TakeFault(page, hasContent: null, metAt, requests);
            }

            if (missing == FaultTaking.Answered)
            {
                return true;
            }

            if (missing == FaultTaking.Unplaceable)
            {
                return Stall(mayWait);
            }

            if (missing == FaultTaking.NotYet)
            {
                FaultReader.LetRemovalsBeRead();
                continue;
            }

            if (missing > 0)
            {
                engine.Request(requests[..missing]);
            }

            if (!WaitUntilSettled(engine.Memory.FaultPageOf(page), mayWait))
            {
                return false;
            }

            if (IsWhole(engine.Memory.FaultPageOf(page)))
            {
                return true;
            }
        }

        return Stall(mayWait);
    }

    /// <summary>Waits as long as the memory is armed, for what nobody brings.</summary>
    private bool Stall(Func<bool> mayWait)
    {
        lock (_settled)
        {
            while (engine.Memory.IsRegistered)
            {
                if (!mayWait())
                {
                    return false;
                }

                _ = Monitor.Wait(_settled, s_betweenLooks);
            }
        }

        return mayWait();
    }

    /// <summary>Waits until nothing of a page, or huge page, is on its way.</summary>
    private bool WaitUntilSettled(ulong first, Func<bool> mayWait)
    {
        lock (_settled)
        {
            while (!engine.IsStopped && IsOnItsWay(first))
            {
                if (!mayWait())
                {
                    return false;
                }

                _ = Monitor.Wait(_settled);
            }
        }

        return true;
    }

    private bool IsWhole(ulong first) => engine.States.CountRun(first, engine.Memory.FaultPages, PageState.Present) == engine.Memory.FaultPages;

    private bool IsOnItsWay(ulong first)
    {
        for (ulong page = first; page < first + engine.Memory.FaultPages; page++)
        {
            if (engine.States[page] is PageState.Requested or PageState.Arriving or PageState.ArrivingRemoved or PageState.Arming)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Tells the vCPUs that wait on their own threads to look again.</summary>
    internal void Settle()
    {
        if (engine.Delivery == FaultDelivery.Exit)
        {
            InterruptWaits();
        }
    }
}
