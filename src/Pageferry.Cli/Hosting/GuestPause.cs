using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>Whether a guest stands still. Its operator says so, and a migration holds it for its switchover: the guest runs when neither does.</summary>
/// <param name="machine">The machine that the guest runs on.</param>
internal sealed class GuestPause(IMachine machine)
{
    private readonly Lock _lock = new();
    private volatile bool _isPaused;
    private int _holds;
    private bool _isStarted;

    /// <summary>Raised when its operator has had it stand still, and no vCPU runs any more.</summary>
    internal event Action? StoodStill;

    /// <summary>Whether its operator has it stand still.</summary>
    internal bool IsPaused => _isPaused;

    /// <summary>Starts the guest.</summary>
    /// <param name="isPaused">Whether it is to stand still first.</param>
    internal void Start(bool isPaused)
    {
        lock (_lock)
        {
            _isPaused |= isPaused;
            GoOn();
        }
    }

    /// <summary>The operator has the guest stand still, or go on. A vCPU that waits for a page stands still when it has come.</summary>
    /// <param name="isPaused">Whether it is to stand still.</param>
    /// <returns>False if a migration holds it: nothing was changed.</returns>
    internal bool TrySet(bool isPaused)
    {
        lock (_lock)
        {
            if (_holds > 0)
            {
                return false;
            }

            _isPaused = isPaused;
            if (isPaused)
            {
                machine.Pause();
                StoodStill?.Invoke();
            }
            else
            {
                GoOn();
            }

            return true;
        }
    }

    /// <summary>A migration stops the guest, until each hold was released. Returns when no vCPU runs any more.</summary>
    internal void Hold()
    {
        lock (_lock)
        {
            _holds++;
            machine.Pause();
        }
    }

    /// <summary>Ends one hold.</summary>
    internal void Release()
    {
        lock (_lock)
        {
            _holds--;
            GoOn();
        }
    }

    /// <summary>Does something while no vCPU runs. Afterwards the guest runs or stands still as before.</summary>
    /// <param name="action">What to do; it may throw.</param>
    internal void WhileStill(Action action)
    {
        lock (_lock)
        {
            machine.Pause();
            try
            {
                action();
            }
            finally
            {
                if (_isStarted && !_isPaused && _holds == 0)
                {
                    machine.Resume();
                }
            }
        }
    }

    private void GoOn()
    {
        if (_isPaused || _holds > 0)
        {
            return;
        }

        if (_isStarted)
        {
            machine.Resume();
            return;
        }

        _isStarted = true;
        machine.Start();
    }
}
