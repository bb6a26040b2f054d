using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>A thread that reads a userfaultfd: faults, and removals of memory.</summary>
/// <param name="engine">Acts on them.</param>
/// <param name="cpu">The CPU that the thread runs on; null for any.</param>
internal sealed class FaultReader(FaultEngine engine, int? cpu = null) : IDisposable
{
    private const int EventsPerRead = 256;

    /// <summary>The reader whose thread this is.</summary>
    [ThreadStatic]
    private static FaultReader? s_current;

    private readonly UserfaultfdEventBuffer _removals = new(EventsPerRead);
    private readonly UserfaultfdEventBuffer _events = new(EventsPerRead);
    private readonly ulong[] _requests = new ulong[EventsPerRead * engine.Memory.FaultPages];
    private readonly EventFd _stop = new();
    private Userfaultfd? _userfaultfd;
    private long _faults;
    private Thread? _thread;

    /// <summary>Faults read so far.</summary>
    internal long Faults => Volatile.Read(ref _faults);

    /// <summary>Frees what the thread used; it has stopped.</summary>
    public void Dispose()
    {
        _stop.Dispose();
        _events.Dispose();
        _removals.Dispose();
    }

    /// <summary>
    /// Has a removal read that keeps pages from being placed: on the reader's own thread, which may be in a page source that places pages at once, by reading it.
    /// </summary>
    internal static void LetRemovalsBeRead()
    {
        if (s_current is { } reader)
        {
            reader.ReadRemovals();
        }
        else
        {
            _ = Thread.Yield();
        }
    }

    /// <summary>Stops the thread, if it was started and runs.</summary>
    internal void Stop()
    {
        Thread? thread = Interlocked.Exchange(ref _thread, null);
        if (thread is not null)
        {
            _stop.Signal();
            thread.Join();
        }
    }

    internal void Start(Userfaultfd userfaultfd)
    {
        _userfaultfd = userfaultfd;
        _thread = new Thread(ReadUntilStopped) { IsBackground = true, Name = "fault reader" };
        _thread.Start();
    }

    private void ReadUntilStopped()
    {
        s_current = this;
        DemandThread.Begin();
        try
        {
            if (cpu is { } chosen)
            {
                CurrentThread.RunOn(chosen);
            }

            var poll = new Poll(_userfaultfd!.Descriptor, _stop.Descriptor);
            do
            {
                while (ReadBatch())
                {
                }

                poll.Wait(Timeout.Infinite);
            }
            while (!poll.IsReadable(1));
        }
        catch (Exception failure)
        {
            engine.Fail(failure);
        }
    }

    /// <summary>Acts on removals alone. Who waits in a fault that was read with them touches its page again.</summary>
    private void ReadRemovals()
    {
        using (engine.Placing.EnterAll())
        {
            int events = _userfaultfd!.Read(_removals);
            for (int i = 0; i < events; i++)
            {
                UserfaultfdEvent read = _removals[i];
                if (read.Kind == UserfaultfdEventKind.Remove)
                {
                    engine.ApplyRemoval(engine.Memory.PageAtGuestView(read.Start), engine.Memory.PageAtGuestView(read.End));
                }
                else if (read.Kind == UserfaultfdEventKind.PageFault)
                {
                    engine.SendBack(engine.Memory.FaultPageOf(engine.Memory.PageAtGuestView(read.Address)), engine.Memory.FaultPages);
                }
            }
        }
    }

    /// <summary>Reads what events there are and acts on them, removals first: a fault behind them must find their effect.</summary>
    /// <returns>Whether there may be more.</returns>
    private bool ReadBatch()
    {
        int events;
        int requests = 0;
        using (engine.Placing.EnterAll())
        {
            events = _userfaultfd!.Read(_events);
            for (int i = 0; i < events; i++)
            {
                UserfaultfdEvent read = _events[i];
                if (read.Kind == UserfaultfdEventKind.Remove)
                {
                    engine.ApplyRemoval(engine.Memory.PageAtGuestView(read.Start), engine.Memory.PageAtGuestView(read.End));
                }
            }

            long now = Stopwatch.GetTimestamp();
            for (int i = 0; i < events; i++)
            {
                UserfaultfdEvent read = _events[i];
                if (read.Kind == UserfaultfdEventKind.PageFault)
                {
                    Volatile.Write(ref _faults, _faults + 1);

                    // Private memory has no minor faults: what it keeps aside is not told.
                    bool? hasContent = engine.Memory.HasHostView ? read.IsMinor : null;
                    requests += Math.Max(0, engine.TakeFault(engine.Memory.PageAtGuestView(read.Address), hasContent, now, _requests.AsSpan(requests)));
                }
            }
        }

        if (requests > 0)
        {
            engine.Request(_requests.AsSpan(0, requests));
        }

        return events == EventsPerRead;
    }
}
