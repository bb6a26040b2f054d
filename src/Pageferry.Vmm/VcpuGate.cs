namespace Pageferry.Vmm;

/// <summary>Where a machine's vCPU threads stand still: as long as somebody wants them to.</summary>
/// <remarks>A thread that runs is not stopped; it is kicked, looks at <see cref="MayRun"/>, and parks.</remarks>
/// <param name="vcpus">How many vCPUs. Their threads count as running until each has parked.</param>
/// <param name="kick">Makes a vCPU look whether it may go on.</param>
/// <param name="interruptWaits">Makes vCPUs that wait for a page look.</param>
internal sealed class VcpuGate(int vcpus, Action<int> kick, Action interruptWaits)
{
    /// <summary>How long throttled vCPUs run at a time: QEMU's CPU_THROTTLE_TIMESLICE.</summary>
    private static readonly TimeSpan s_throttleSlice = TimeSpan.FromMilliseconds(10);

    private readonly int _vcpus = vcpus;

    /// <summary>Guards all below, and is pulsed at each change.</summary>
    private readonly object _gate = new();
    private Thread? _throttler;
    private int _throttlePercent;
    private int _running = vcpus; // threads that have not parked

    // Read anywhere.
    private volatile bool _pausing = true;
    private volatile bool _over;
    private volatile bool _stopping;
    private volatile bool _throttled;
    private volatile int _alone = -1; // the vCPU that runs while all others are parked
    private volatile int _still; // how many threads want all vCPUs parked

    /// <summary>Whether a vCPU may go on without parking.</summary>
    internal bool MayRun => !_stopping && !IsHeld;

    /// <summary>Whether the vCPUs will run again.</summary>
    internal bool MayFinish => !_stopping && !_over;

    /// <summary>Whether the vCPUs are to stand still until <see cref="Resume"/>.</summary>
    internal bool IsPausing => _pausing;

    /// <summary>Whether <see cref="TryEnd"/> was called.</summary>
    internal bool IsOver => _over;

    private bool IsHeld => _pausing || _throttled || _over || _alone >= 0 || _still > 0;

    /// <summary>Has all vCPUs stand still until <see cref="Resume"/>. Returns when they do.</summary>
    internal void Pause()
    {
        lock (_gate)
        {
            _pausing = true;
            KickAll();
            AwaitParked();
        }
    }

    /// <summary>Lets the vCPUs run.</summary>
    internal void Resume()
    {
        lock (_gate)
        {
            _pausing = false;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>No vCPU runs any more, but for those that wait for a page in the kernel.</summary>
    /// <returns>False if that was so before.</returns>
    internal bool TryEnd()
    {
        lock (_gate)
        {
            if (_over)
            {
                return false;
            }

            _over = true;
            KickAll();
            return true;
        }
    }

    /// <summary>Has the vCPUs' threads end. They are joined next, and then <see cref="JoinThrottler"/> is called.</summary>
    internal void Stop()
    {
        lock (_gate)
        {
            _stopping = true;
            KickAll();
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits until nothing kicks a vCPU any more.</summary>
    internal void JoinThrottler() => _throttler?.Join();

    /// <summary>Has the vCPUs stand still for a share of the time.</summary>
    /// <param name="percent">The share: 0 to 99.</param>
    internal void Throttle(int percent)
    {
        lock (_gate)
        {
            _throttlePercent = percent;
            if (percent > 0 && _throttler is null)
            {
                _throttler = new Thread(KeepThrottled) { IsBackground = true, Name = "throttle" };
                _throttler.Start();
            }

            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits, for a vCPU's thread, as long as it may not run.</summary>
    /// <returns>Whether the vCPU is to go on; false when the machine is given back.</returns>
    internal bool Park()
    {
        lock (_gate)
        {
            _running--;
            Monitor.PulseAll(_gate);
            while (!_stopping && IsHeld)
            {
                _ = Monitor.Wait(_gate);
            }

            _running++;
            return !_stopping;
        }
    }

    /// <summary>A vCPU's thread ends.</summary>
    internal void Leave()
    {
        lock (_gate)
        {
            _running--;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits until each thread has parked or ended.</summary>
    internal void WaitUntilParked()
    {
        lock (_gate)
        {
            AwaitParked();
        }
    }

    /// <summary>Does something while the vCPUs are paused, and none can begin to run.</summary>
    /// <returns>Whether it was done; false if they are not paused.</returns>
    internal bool TryWhilePaused(Action action)
    {
        lock (_gate)
        {
            if (!_pausing || _running > 0)
            {
                return false;
            }

            action();
            return true;
        }
    }

    /// <summary>Does something on a vCPU's thread while no other vCPU runs.</summary>
    /// <returns>Whether it was done; false if the vCPU is to park first.</returns>
    internal bool TryRunAlone(int vcpu, Action action)
    {
        lock (_gate)
        {
            if (!MayRun)
            {
                return false;
            }

            _alone = vcpu;
            KickAll(except: vcpu);
            while (_running > 1)
            {
                _ = Monitor.Wait(_gate);
            }
        }

        try
        {
            action();
        }
        finally
        {
            lock (_gate)
            {
                _alone = -1;
                Monitor.PulseAll(_gate);
            }
        }

        return true;
    }

    /// <summary>Does something while no vCPU runs, on a thread that is none of theirs.</summary>
    internal void RunStill(Action action)
    {
        lock (_gate)
        {
            _still++;
            KickAll();
            AwaitParked();
        }

        try
        {
            action();
        }
        finally
        {
            lock (_gate)
            {
                _still--;
                Monitor.PulseAll(_gate);
            }
        }
    }

    /// <summary>Makes each vCPU look whether it may go on.</summary>
    /// <param name="except">A vCPU that is left alone.</param>
    internal void KickAll(int except = -1)
    {
        for (int i = 0; i < _vcpus; i++)
        {
            if (i != except)
            {
                kick(i);
            }
        }

        interruptWaits();
    }

    private void AwaitParked()
    {
        while (_running > 0)
        {
            _ = Monitor.Wait(_gate);
        }
    }

    /// <summary>Lets the vCPUs run and stand still in turn until the throttle is taken off.</summary>
    private void KeepThrottled()
    {
        lock (_gate)
        {
            while (_throttlePercent > 0 && MayFinish)
            {
                WaitThrottled(s_throttleSlice);
                _throttled = true;
                KickAll();
                WaitThrottled(s_throttleSlice * _throttlePercent / (100 - _throttlePercent));
                _throttled = false;
                Monitor.PulseAll(_gate);
            }

            _throttler = null;
        }
    }

    private void WaitThrottled(TimeSpan time)
    {
        long until = Environment.TickCount64 + (long)time.TotalMilliseconds;
        while (_throttlePercent > 0 && MayFinish && until - Environment.TickCount64 is > 0 and long left)
        {
            _ = Monitor.Wait(_gate, (int)left);
        }
    }
}
