using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>A machine as the destination of a migration sees it.</summary>
/// <param name="id">Tells the guest apart from all others, wherever it runs.</param>
/// <param name="machine">The machine that the guest is going to run on.</param>
/// <param name="engine">Answers its userfaults.</param>
internal sealed class ArrivingGuest(Guid id, IMachine machine, FaultEngine engine) : IArrivingGuest
{
    private Action? _executed;

    /// <summary>Tells the guest apart from all others, wherever it runs.</summary>
    internal Guid Id => id;

    /// <summary>The machine that the guest runs on.</summary>
    internal IMachine Machine => machine;

    /// <summary>Whether it stands still.</summary>
    internal GuestPause Pause { get; } = new(machine);

    /// <inheritdoc/>
    public FaultEngine Engine => engine;

    /// <inheritdoc/>
    public void LoadState(ReadOnlySpan<byte> state) => machine.LoadState(state);

    /// <inheritdoc/>
    public void Start(bool isPaused, Action executed)
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

    /// <inheritdoc/>
    public void Stop() => Pause.Hold();

    /// <inheritdoc/>
    public byte[] SaveState() => machine.SaveState();

    /// <summary>Gives the machine back: the guest did not arrive.</summary>
    public void Dispose() => machine.Dispose();

    private void TellExecuted() => Interlocked.Exchange(ref _executed, null)?.Invoke();
}
