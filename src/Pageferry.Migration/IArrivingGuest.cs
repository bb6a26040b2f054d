using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>A guest that arrives: first room for its memory, then its machine state, then it starts.</summary>
public interface IArrivingGuest : IDisposable
{
    /// <summary>The engine that is to answer the faults of its memory, which nobody has touched; made by the guest's host, started and disposed by the migration.</summary>
    FaultEngine Engine { get; }

    /// <summary>
    /// Where the migration notes what another process needs to go on if this one dies; null where the guest would die with it. A guest that has one may be told
    /// to start more often than once.
    /// </summary>
    ArrivalRecord? Record => null;

    /// <summary>Loads the machine state without touching memory.</summary>
    /// <param name="state">What the source's <see cref="IMigratingGuest.SaveState"/> gave.</param>
    /// <exception cref="Exception">The state can't be loaded here; its message goes to the source, where the guest goes on.</exception>
    void LoadState(ReadOnlySpan<byte> state);

    /// <summary>Lets the vCPUs run.</summary>
    /// <param name="isPaused">Whether they are to stand still until somebody resumes the guest, as they did at the source.</param>
    /// <param name="executed">
    /// Called, from any thread, when the guest is known to have executed an instruction, was made to stand still meanwhile, or has ended: once or more often. Never if it is paused.
    /// </param>
    void Start(bool isPaused, Action executed);

    /// <summary>Stops the guest for good: no vCPU runs any more when this returns. It may have been stopped before, and need not have been started.</summary>
    void Stop();

    /// <summary>Saves all that the guest is beside memory, after <see cref="Stop"/>.</summary>
    /// <returns>The machine state, opaque to the migration.</returns>
    byte[] SaveState();
}
