using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>A thread that reads a userfaultfd: faults, and changes of the address space.</summary>
/// <param name="engine">Acts on them.</param>
/// <param name="cpu">The CPU that the thread runs on; null for any.</param>
internal sealed class FaultReader(FaultEngine engine, int? cpu = null) : IDisposable
{
    private const int EventsPerRead = ForeignRecord.Events;

    /// <summary>The reader whose thread this is.</summary>
    [ThreadStatic]
    private static FaultReader? s_current;

    private readonly AddressSpaceEvents _changes = new(engine);
    private readonly UserfaultfdEventBuffer _own = new(EventsPerRead);
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
        _own.Dispose();
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

    /// <summary>Where messages are read to: what was read before is done then.</summary>
    private UserfaultfdEventBuffer Buffer => engine.Memory.Record?.Unapplied ?? _own;

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

    /// <summary>
    /// Acts on what an engine that died had read, before anything is placed. Its messages need not be without a gap. A child that it tells of is found among those that are kept, or not
    /// at all: the number of its userfaultfd was that engine's.
    /// </summary>
    internal void TakeOver()
    {
        UserfaultfdEventBuffer left = Buffer;
        using (engine.Placing.EnterAll())
        {
            for (int i = 0; i < left.Capacity; i++)
            {
                if (!left[i].IsEmpty && left[i].Kind != UserfaultfdEventKind.Fork)
                {
                    ApplyAlone(left[i]);
                }
            }
        }

        _changes.Complete(left.Capacity, isTakenOver: true);
    }

    /// <summary>Acts on changes of the address space alone.</summary>
    private void ReadRemovals()
    {
        int events;
        UserfaultfdEventBuffer buffer = Buffer;
        using (engine.Placing.EnterAll())
        {
            events = _userfaultfd!.Read(buffer);
            for (int i = 0; i < events; i++)
            {
                ApplyAlone(buffer[i]);
            }
        }

        _changes.Complete(events);
    }

    /// <summary>Acts on a change of the address space. Who waits in a fault touches its page again.</summary>
    private void ApplyAlone(UserfaultfdEvent read)
    {
        _changes.Apply(read);
        if (read.Kind == UserfaultfdEventKind.PageFault)
        {
            SendBack(read.Address);
        }
    }

    /// <summary>Reads what events there are and acts on them, faults last: a fault behind a change must find its effect.</summary>
    /// <returns>Whether there may be more.</returns>
    private bool ReadBatch()
    {
        int events;
        int requests = 0;
        UserfaultfdEventBuffer buffer = Buffer;
        using (engine.Placing.EnterAll())
        {
            events = _userfaultfd!.Read(buffer);
            for (int i = 0; i < events; i++)
            {
                _changes.Apply(buffer[i]);
            }

            long now = Stopwatch.GetTimestamp();
            for (int i = 0; i < events; i++)
            {
                UserfaultfdEvent read = buffer[i];
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

        _changes.Complete(events);
        if (requests > 0)
        {
            engine.Request(_requests.AsSpan(0, requests));
        }

        return events == EventsPerRead;
    }
}
