using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>A machine in this process for a guest that arrives, wherever the engine is that answers its userfaults.</summary>
/// <param name="id">Tells the guest apart from all others, wherever it runs.</param>
/// <param name="machine">The machine that the guest is going to run on.</param>
internal sealed class HostedGuest(Guid id, IMachine machine) : IDisposable
{
    private Action? _executed;

    /// <summary>Tells the guest apart from all others, wherever it runs.</summary>
    internal Guid Id => id;

    /// <summary>The machine that the guest runs on.</summary>
    internal IMachine Machine => machine;

    /// <summary>Whether it stands still.</summary>
    internal GuestPause Pause { get; } = new(machine);

    /// <summary>Lets the vCPUs run.</summary>
    /// <param name="isPaused">Whether they are to stand still until somebody resumes the guest.</param>
    /// <param name="executed">See <see cref="Migration.IArrivingGuest.Start"/>.</param>
    internal void Start(bool isPaused, Action executed)
    {
        if (!isPaused)
        {
            // One that is made to stand still, or that ends, before anybody saw it execute is not waited for.
            _executed = executed;
            machine.FirstInstruction += TellExecuted;
            Pause.StoodStill += TellExecuted;
            _ = machine.Ended.ContinueWith(_ => TellExecuted(), TaskScheduler.Default);
        }

        Pause.Start(isPaused);
    }

    /// <summary>Gives the machine back: the guest did not arrive.</summary>
    public void Dispose() => machine.Dispose();

    private void TellExecuted() => Interlocked.Exchange(ref _executed, null)?.Invoke();
}
