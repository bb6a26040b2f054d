using System.Diagnostics;
using System.Numerics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What one side counts while it migrates; written and read by any thread.</summary>
internal sealed class MigrationCounters
{
    private long _began = Stopwatch.GetTimestamp();
    private long _ended;
    private long _backgroundBegan;
    private long _backgroundEnded;
    private long _demand;
    private long _precopy;
    private long _background;
    private long _zero;
    private long _bytes;
    private long _damaged;
    private long _remaining;
    private long _downtimeTicks;
    private long _expectedDowntimeTicks;
    private double _bandwidth;
    private double _dirtyRate;
    private int _round;
    private int _throttle;
    private int _protocolVersion;
    private int _reconnects;
    private string? _waitsFor;
    private long _waitsSince;
    private int _phase = (int)MigrationPhase.Preparing;

    internal long PagesTotal
    {
        get;
        set
        {
            field = value;
            Remaining = value;
        }
    }

    internal MigrationPhase Phase
    {
        get => (MigrationPhase)Volatile.Read(ref _phase);
        set
        {
            if (value == MigrationPhase.Preparing)
            {
                // A destination has waited for its source until now.
                Volatile.Write(ref _began, Stopwatch.GetTimestamp());
            }

            bool isNew = Interlocked.Exchange(ref _phase, (int)value) != (int)value;
            if (value is MigrationPhase.Completed or MigrationPhase.Failed or MigrationPhase.Cancelled or MigrationPhase.Stalled or MigrationPhase.Mismatched)
            {
                Volatile.Write(ref _ended, Stopwatch.GetTimestamp());
                Remaining = value == MigrationPhase.Completed ? 0 : Volatile.Read(ref _remaining);
            }

            if (isNew)
            {
                Recording?.Note();
            }
        }
    }

    /// <summary>Keeps what happens for a report; null if nobody wants one.</summary>
    internal MigrationRecording? Recording { get; set; }

    internal int ProtocolVersion
    {
        set => Volatile.Write(ref _protocolVersion, value);
    }

    internal TimeSpan Downtime
    {
        get => TimeSpan.FromTicks(Volatile.Read(ref _downtimeTicks));
        set => Volatile.Write(ref _downtimeTicks, value.Ticks);
    }

    internal int Throttle
    {
        get => Volatile.Read(ref _throttle);
        set => Volatile.Write(ref _throttle, value);
    }

    internal long Bytes => Volatile.Read(ref _bytes);

    internal long Damaged => Volatile.Read(ref _damaged);

    internal uint Round
    {
        set
        {
            Volatile.Write(ref _round, (int)value);
            Recording?.Note();
        }
    }

    /// <summary>What is to be sent of the round, or after the switchover.</summary>
    internal long Remaining
    {
        set => Volatile.Write(ref _remaining, value);
    }

    /// <summary>A round was measured.</summary>
    internal void Measured(double bytesPerSecond, double dirtyBytesPerSecond, TimeSpan expectedDowntime)
    {
        Volatile.Write(ref _bandwidth, bytesPerSecond);
        Volatile.Write(ref _dirtyRate, dirtyBytesPerSecond);
        Volatile.Write(ref _expectedDowntimeTicks, expectedDowntime.Ticks);
    }

    /// <summary>From now on pages go that nobody waits for.</summary>
    internal void BeginBackground() => Interlocked.CompareExchange(ref _backgroundBegan, Stopwatch.GetTimestamp(), 0);

    /// <summary>A link that was lost was found again.</summary>
    internal void AddReconnect()
    {
        _ = Interlocked.Increment(ref _reconnects);
        WaitFor(null);
    }

    /// <summary>Something is waited for, or has come; the time counts from the first thing on.</summary>
    internal void WaitFor(string? what)
    {
        if (what is null || Volatile.Read(ref _waitsFor) is null)
        {
            Volatile.Write(ref _waitsSince, Stopwatch.GetTimestamp());
        }

        Volatile.Write(ref _waitsFor, what);
    }

    internal void AddDemand(in PageBatch batch, int payloadBytes)
    {
        _ = Interlocked.Add(ref _demand, batch.ContentPages);
        Add(batch, payloadBytes, TransferKind.Demand);
    }

    internal void AddBackground(in PageBatch batch, int payloadBytes)
    {
        bool isPostCopy = IsBackgroundBegun();
        _ = Interlocked.Add(ref isPostCopy ? ref _background : ref _precopy, batch.ContentPages);
        Add(batch, payloadBytes, isPostCopy ? TransferKind.Background : TransferKind.Precopy);
    }

    internal void AddZeros(in ZeroRun run)
    {
        _ = IsBackgroundBegun();
        Recording?.Map?.Add(TransferKind.Zero, run.First, run.Count);
        Add(0, (long)run.Count, ZeroRun.FrameBytes);
    }

    internal void AddDamaged(long pages = 1) => Interlocked.Add(ref _damaged, pages);

    internal void AddControl(long bytes) => Interlocked.Add(ref _bytes, bytes);

    internal MigrationProgress Snapshot()
    {
        long background = Volatile.Read(ref _background);
        long ended = Volatile.Read(ref _ended);

        // In this order: what a phase waits for is told before the phase.
        MigrationPhase phase = Phase;
        string? waitsFor = Volatile.Read(ref _waitsFor);
        double seconds = Stopwatch.GetElapsedTime(Volatile.Read(ref _backgroundBegan), Volatile.Read(ref _backgroundEnded)).TotalSeconds;
        return new MigrationProgress
        {
            Phase = phase,
            PagesTotal = PagesTotal,
            PagesDemand = Volatile.Read(ref _demand),
            PagesPrecopy = Volatile.Read(ref _precopy),
            PagesBackground = background,
            PagesZero = Volatile.Read(ref _zero),
            PagesDamaged = Damaged,
            PagesRemaining = Math.Max(0, Volatile.Read(ref _remaining)),
            BytesSent = Bytes,
            Downtime = Downtime,
            Total = Stopwatch.GetElapsedTime(Volatile.Read(ref _began), ended != 0 ? ended : Stopwatch.GetTimestamp()),
            BackgroundMibPerSecond = seconds > 0 && background > 0 ? background * Page.Size / seconds / (1 << 20) : 0,
            Round = Volatile.Read(ref _round),
            BandwidthMibPerSecond = Volatile.Read(ref _bandwidth) / (1 << 20),
            DirtyMibPerSecond = Volatile.Read(ref _dirtyRate) / (1 << 20),
            ExpectedDowntime = TimeSpan.FromTicks(Volatile.Read(ref _expectedDowntimeTicks)),
            ThrottlePercent = Throttle,
            Reconnects = Volatile.Read(ref _reconnects),
            WaitsFor = waitsFor,
            WaitedFor = waitsFor is null ? TimeSpan.Zero : Stopwatch.GetElapsedTime(Volatile.Read(ref _waitsSince)),
            ProtocolVersion = Volatile.Read(ref _protocolVersion),
        };
    }

    /// <returns>Whether pages that nobody waits for go after the switchover; then it is noted that one went now.</returns>
    private bool IsBackgroundBegun()
    {
        bool isPostCopy = Phase == MigrationPhase.PostCopy;
        if (isPostCopy)
        {
            Volatile.Write(ref _backgroundEnded, Stopwatch.GetTimestamp());
        }

        return isPostCopy;
    }

    private void Add(in PageBatch batch, int payloadBytes, TransferKind kind)
    {
        if (Recording?.Map is { } map)
        {
            map.AddMask(kind, batch.First, batch.Content);
            map.AddMask(TransferKind.Zero, batch.First, batch.Zeros);
        }

        Add(batch.ContentPages, BitOperations.PopCount(batch.Zeros), PageBatch.PrologueBytes + payloadBytes);
    }

    private void Add(long pages, long zeros, long bytes)
    {
        if (zeros != 0)
        {
            _ = Interlocked.Add(ref _zero, zeros);
        }

        _ = Interlocked.Add(ref _remaining, -(pages + zeros));
        _ = Interlocked.Add(ref _bytes, bytes);
    }
}
