using Pageferry.Memory;

namespace Pageferry.Conformance;

/// <summary>A guest's memory of which nothing is armed yet, with the product's own engine over it and nobody who answers.</summary>
internal sealed class Guarded : IPageSource, IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly List<Thread> _users = [];
    private readonly GuestMemory _memory;
    private int _asked;

    internal Guarded(GuestBacking backing, FaultDelivery delivery, ulong bytes)
    {
        _memory = GuestMemory.Create(bytes, backing);
        FaultEngine? engine = null;
        try
        {
            engine = new FaultEngine(_memory, delivery: delivery);
            engine.Start(this, armed: false);
        }
        catch
        {
            engine?.Dispose();
            _memory.Dispose();
            throw;
        }

        Engine = engine;
    }

    internal FaultEngine Engine { get; }

    /// <summary>What is armed and faulted in at once, in bytes.</summary>
    internal ulong Unit => _memory.FaultSize;

    internal ulong PagesPerUnit => Unit / Page.Size;

    /// <summary>Waits until a page was asked for.</summary>
    internal bool WasAsked => SpinWait.SpinUntil(() => Volatile.Read(ref _asked) > 0, s_patience);

    internal int Asked => Volatile.Read(ref _asked);

    public void Request(ReadOnlySpan<ulong> pages) => Interlocked.Increment(ref _asked);

    internal void Write(ulong unit, byte value) => _memory.WriteAsGuest(unit * Unit, [value]);

    /// <summary>Reads on a thread of its own.</summary>
    internal Touch Read(ulong unit) => new(StartUser, () =>
    {
        Span<byte> one = stackalloc byte[1];
        _memory.ReadAsGuest(unit * Unit, one);
        return one[0];
    });

    /// <summary>Places content, each byte of which is one value.</summary>
    internal void Place(PageLane lane, ulong unit, byte value)
    {
        for (ulong done = 0; done < PagesPerUnit;)
        {
            int begun = lane.Begin((unit * PagesPerUnit) + done, (int)(PagesPerUnit - done), out Span<byte> buffer);
            buffer.Fill(value);
            if (begun > 0)
            {
                lane.Complete();
            }

            done += (ulong)Math.Abs(begun);
        }
    }

    /// <summary>Shows a unit again with what it had.</summary>
    internal void Keep(ulong unit) => _ = Engine.Keep(unit * PagesPerUnit, PagesPerUnit);

    public void Dispose()
    {
        // Where a case has failed a thread may still wait.
        _ = Engine.Disarm(0, _memory.Size);
        _users.ForEach(user => user.Join());
        Engine.Dispose();
        _memory.Dispose();
    }

    private Thread StartUser(ThreadStart touch)
    {
        var user = new Thread(touch) { IsBackground = true };
        _users.Add(user);
        user.Start();
        return user;
    }
}
