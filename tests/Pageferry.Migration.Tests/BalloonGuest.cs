using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>
/// A guest with a balloon: two threads take memory away and write to some of it again, as fast as they can, while others touch all memory and compare it with
/// the <see cref="BalloonLedger"/>, which goes with the guest.
/// </summary>
internal sealed class BalloonGuest(GuestMemory memory, BalloonLedger ledger, FaultDelivery delivery = FaultDelivery.Queue) : IMigratingGuest, IArrivingGuest
{
    private const int Touching = 2;

    private readonly List<Thread> _threads = [];
    private volatile bool _stopping;
    private long _removals;
    private long _touches;

    public Guid Id { get; } = Guid.NewGuid();

    public string MachineKind => "balloon";

    public GuestMemory Memory => memory;

    public FaultEngine Engine => field ??= new FaultEngine(memory, delivery: delivery);

    public bool IsPaused => false;

    /// <summary>What went wrong on any of its threads.</summary>
    public Exception? Failure { get; private set; }

    public long Removals => Volatile.Read(ref _removals);

    public long Touches => Volatile.Read(ref _touches);

    public IDirtyTracker TrackDirtyPages() => new ScanDirtyTracker(memory);

    public void Throttle(int percent)
    {
    }

    public void Pause()
    {
        _stopping = true;
        _threads.ForEach(thread => thread.Join());
        _threads.Clear();
    }

    public void Stop() => Pause();

    public void Resume()
    {
        _stopping = false;
        for (int i = 0; i < BalloonLedger.Balloons; i++)
        {
            int balloon = i;
            Run(random => Inflate(balloon, random), seed: i);
        }

        for (int i = 0; i < Touching; i++)
        {
            Run(Touch, seed: 100 + i);
        }
    }

    public byte[] SaveState() => [1];

    public void LoadState(ReadOnlySpan<byte> state)
    {
    }

    public void Start(bool isPaused, Action executed)
    {
        Resume();
        executed();
    }

    /// <summary>Compares all of its memory; it is paused.</summary>
    public long CountWrong()
    {
        long wrong = 0;
        for (ulong page = 0; page < memory.PageCount; page++)
        {
            wrong += ledger.IsRight(page, ReadWord(page, 0)) && ledger.IsRight(page, ReadWord(page, BalloonLedger.LastWord)) ? 0 : 1;
        }

        return wrong;
    }

    public void Dispose()
    {
        Pause();
        memory.Dispose();
    }

    private void Run(Action<Random> step, int seed)
    {
        var thread = new Thread(() =>
        {
            var random = new Random(seed);
            try
            {
                while (!_stopping && Failure is null)
                {
                    step(random);
                }
            }
            catch (Exception failure)
            {
                Failure = failure;
            }
        })
        { IsBackground = true };
        _threads.Add(thread);
        thread.Start();
    }

    private void Inflate(int balloon, Random random)
    {
        (ulong first, ulong count) = ledger.Choose(balloon, random);
        ledger.BeginRemoval(first, count);
        memory.Remove(first * Page.Size, count * Page.Size);
        ledger.EndRemoval(first, count);
        _ = Interlocked.Increment(ref _removals);
        if (random.Next(4) == 0)
        {
            ulong page = first + (ulong)random.NextInt64((long)count);
            ulong stamp = ledger.BeginStamp(page);
            WriteWord(page, 0, stamp);
            WriteWord(page, BalloonLedger.LastWord, stamp);
            ledger.EndStamp(page);
        }
    }

    private void Touch(Random random)
    {
        ulong page = (ulong)random.NextInt64((long)memory.PageCount);
        ledger.Check(page, () => ReadWord(page, random.Next(2) * BalloonLedger.LastWord));
        _ = Interlocked.Increment(ref _touches);
    }

    private ulong ReadWord(ulong page, int offset)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        memory.ReadAsGuest((page * Page.Size) + (ulong)offset, word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }

    private void WriteWord(ulong page, int offset, ulong value)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(word, value);
        memory.WriteAsGuest((page * Page.Size) + (ulong)offset, word);
    }
}
