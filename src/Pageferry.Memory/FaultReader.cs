using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>A thread that reads a userfaultfd: faults, and changes of the address space.</summary>
/// <param name="engine">Acts on them.</param>
/// <param name="cpu">The CPU that the thread runs on; null for any.</param>
internal sealed class FaultReader(FaultEngine engine, int? cpu = null) : IDisposable
{
    private const int EventsPerRead = 256;

    /// <summary>The reader whose thread this is.</summary>
    [ThreadStatic]
    private static FaultReader? s_current;

    private readonly AddressSpaceEvents _changes = new(engine);
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

    private void SendBack(ulong address)
    {
        ulong at = address;
        if (engine.Memory.TryNextInGuestView(ref at, at + Page.Size, out ulong page, out _))
        {
            engine.SendBack(engine.Memory.FaultPageOf(page), engine.Memory.FaultPages);
        }
        else
        {
            engine.Placer.Userfaultfd!.Wake(address, Page.Size);
        }
    }

    /// <summary>Acts on changes of the address space alone. Who waits in a fault that was read with them touches its page again.</summary>
    private void ReadRemovals()
    {
        using (engine.Placing.EnterAll())
        {
            int events = _userfaultfd!.Read(_removals);
            for (int i = 0; i < events; i++)
            {
                UserfaultfdEvent read = _removals[i];
                _changes.Apply(read);
                if (read.Kind == UserfaultfdEventKind.PageFault)
                {
                    SendBack(read.Address);
                }
            }
        }

        _changes.HandOverChildren();
    }

    /// <summary>Reads what events there are and acts on them, faults last: a fault behind a change must find its effect.</summary>
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
                _changes.Apply(_events[i]);
            }

            long now = Stopwatch.GetTimestamp();
            for (int i = 0; i < events; i++)
            {
                UserfaultfdEvent read = _events[i];
                if (read.Kind == UserfaultfdEventKind.PageFault)
                {
                    Volatile.Write(ref _faults, _faults + 1);
                    ulong at = read.Address;
                    if (!engine.Memory.TryNextInGuestView(ref at, at + Page.Size, out ulong page, out _))
                    {
                        engine.TakeStray(read.Address, now);
                        continue;
                    }

                    // Private memory has no minor faults: what it keeps aside is not told.
                    bool? hasContent = engine.Memory.HasHostView ? read.IsMinor : null;
                    requests += Math.Max(0, engine.TakeFault(page, hasContent, now, _requests.AsSpan(requests)));
                }
            }
        }

        _changes.HandOverChildren();
        if (requests > 0)
        {
            engine.Request(_requests.AsSpan(0, requests));
        }

        return events == EventsPerRead;
    }
}
