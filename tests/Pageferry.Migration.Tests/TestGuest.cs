using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>
/// A guest of one thread: it goes over its memory, checks that each page holds what it wrote last, and writes the next round's word. Every third page stays
/// untouched and zero.
/// </summary>
internal sealed class TestGuest : IMigratingGuest, IArrivingGuest
{
    private readonly Lock _gate = new();
    private Thread? _thread;
    private volatile bool _stopping;
    private Action? _executed;
    private ulong _page;
    private ulong _round;
    private long _wrong;

    public TestGuest(GuestMemory memory, Guid? id = null)
    {
        Memory = memory;
        Id = id ?? Guid.NewGuid();
    }

    public Guid Id { get; }

    public string MachineKind { get; init; } = "test";

    public GuestMemory Memory { get; }

    public FaultEngine Engine => field ??= new FaultEngine(Memory, delivery: Delivery);

    public FaultDelivery Delivery { get; init; } = FaultDelivery.Queue;

    public long Wrong => Volatile.Read(ref _wrong);

    public ulong Round => Volatile.Read(ref _round);

    public bool IsRunning => _thread is { IsAlive: true };

    public bool IsPaused { get; set; }

    public int Pauses { get; private set; }

    public void Pause()
    {
        lock (_gate)
        {
            Pauses++;
            _stopping = true;
            _thread?.Join();
            _thread = null;
        }
    }

    public void Stop() => Pause();

    public string? WhyNotHere { get; set; }

    public void StandBy()
    {
        if (WhyNotHere is not null)
        {
            throw new NotSupportedException(WhyNotHere);
        }
    }

    public void Resume()
    {
        lock (_gate)
        {
            if (IsPaused)
            {
                return;
            }

            _stopping = false;
            _thread = new Thread(Run) { IsBackground = true };
            _thread.Start();
        }
    }

    public void Start(bool isPaused, Action executed)
    {
        _executed = executed;
        if (!isPaused)
        {
            Resume();
        }
    }

    public IDirtyTracker TrackDirtyPages() => new ScanDirtyTracker(Memory);

    public void Throttle(int percent) => ThrottledTo = percent;

    public int ThrottledTo { get; private set; }

    /// <summary>How long it takes until the guest executes after it was let run.</summary>
    public TimeSpan Hesitation { get; init; }

    public byte[] SaveState()
    {
        var state = new byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(state, _page);
        BinaryPrimitives.WriteUInt64LittleEndian(state.AsSpan(8), _round);
        return state;
    }

    public void LoadState(ReadOnlySpan<byte> state)
    {
        _page = BinaryPrimitives.ReadUInt64LittleEndian(state);
        _round = BinaryPrimitives.ReadUInt64LittleEndian(state[8..]);
    }

    public void Dispose()
    {
        Pause();
        Memory.Dispose();
    }

    private static ulong Word(ulong page, ulong round) => page % 3 == 0 || round == 0 ? 0 : (page * 0x9E37_79B9_7F4A_7C15) + round;

    private void Run()
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        Thread.Sleep(Hesitation);
        while (!_stopping)
        {
            int offset = (int)(_page % 511) * 8;
            Memory.ReadAsGuest((_page * Page.Size) + (ulong)offset, word);
            _wrong += BinaryPrimitives.ReadUInt64LittleEndian(word) == Word(_page, _round) ? 0 : 1;
            if (_page % 3 != 0)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(word, Word(_page, _round + 1));
                Memory.WriteAsGuest((_page * Page.Size) + (ulong)offset, word);
            }

            _page++;
            if (_page == Memory.PageCount)
            {
                _page = 0;
                Volatile.Write(ref _round, _round + 1);
            }

            Interlocked.Exchange(ref _executed, null)?.Invoke();
        }
    }
}
