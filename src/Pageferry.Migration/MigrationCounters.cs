using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What one side counts while it migrates. Each field is written by one thread and read by any.</summary>
internal sealed class MigrationCounters
{
    private readonly long _began = Stopwatch.GetTimestamp();
    private long _ended;
    private long _backgroundBegan;
    private long _backgroundEnded;
    private long _demand;
    private long _background;
    private long _zero;
    private long _demandBytes;
    private long _backgroundBytes;
    private long _controlBytes;
    private long _downtimeTicks;
    private volatile int _phase = (int)MigrationPhase.Preparing;

    internal long PagesTotal { get; set; }

    internal MigrationPhase Phase
    {
        get => (MigrationPhase)_phase;
        set
        {
            _phase = (int)value;
            if (value is MigrationPhase.Completed or MigrationPhase.Failed or MigrationPhase.Stalled)
            {
                Volatile.Write(ref _ended, Stopwatch.GetTimestamp());
            }
        }
    }

    internal TimeSpan Downtime
    {
        set => Volatile.Write(ref _downtimeTicks, value.Ticks);
    }

    internal void AddDemand(long pages, long bytes)
    {
        Volatile.Write(ref _demand, _demand + pages);
        Volatile.Write(ref _demandBytes, _demandBytes + bytes);
    }

    internal void AddBackground(long pages, long bytes)
    {
        long now = Stopwatch.GetTimestamp();
        _ = Interlocked.CompareExchange(ref _backgroundBegan, now, 0);
        Volatile.Write(ref _backgroundEnded, now);
        Volatile.Write(ref _background, _background + pages);
        Volatile.Write(ref _backgroundBytes, _backgroundBytes + bytes);
    }

    internal void AddZero(long pages) => Interlocked.Add(ref _zero, pages);

    internal void AddControl(long bytes) => Interlocked.Add(ref _controlBytes, bytes);

    internal MigrationProgress Snapshot()
    {
        long background = Volatile.Read(ref _background);
        long ended = Volatile.Read(ref _ended);
        double seconds = Stopwatch.GetElapsedTime(Volatile.Read(ref _backgroundBegan), Volatile.Read(ref _backgroundEnded)).TotalSeconds;
        return new MigrationProgress(
            Phase,
            PagesTotal,
            Volatile.Read(ref _demand),
            background,
            Volatile.Read(ref _zero),
            Volatile.Read(ref _demandBytes) + Volatile.Read(ref _backgroundBytes) + Volatile.Read(ref _controlBytes),
            TimeSpan.FromTicks(Volatile.Read(ref _downtimeTicks)),
            Stopwatch.GetElapsedTime(_began, ended != 0 ? ended : Stopwatch.GetTimestamp()),
            seconds > 0 ? background * Page.Size / seconds / (1 << 20) : 0);
    }
}
