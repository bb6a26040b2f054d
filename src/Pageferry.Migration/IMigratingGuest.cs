using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>A guest that leaves.</summary>
public interface IMigratingGuest
{
    /// <summary>Tells guests apart; it goes with the guest.</summary>
    Guid Id { get; }

    /// <summary>What the machine state is for, so that a destination can refuse what it can't run.</summary>
    string MachineKind { get; }

    /// <summary>Its memory, which is whole.</summary>
    GuestMemory Memory { get; }

    /// <summary>
    /// Whether somebody else than the migration has it stand still: it then moves as it stands, and goes on where and when that ends. It
    /// stays as it is from <see cref="Pause"/> until <see cref="Resume"/>.
    /// </summary>
    bool IsPaused { get; }

    /// <summary>Begins to track which pages are written, by the guest or by its host.</summary>
    /// <returns>What tells it; its disposal ends the tracking.</returns>
    /// <exception cref="IOException">The kernel can't (<see cref="Linux.LinuxException"/>): all memory then goes after the guest, if that is allowed.</exception>
    IDirtyTracker TrackDirtyPages();

    /// <summary>Slows the guest down.</summary>
    /// <param name="percent">The share of time that its vCPUs are kept from running: 0 to 99.</param>
    void Throttle(int percent);

    /// <summary>Stops the guest; returns when no vCPU runs any more, and nothing that works for it writes or removes its memory.</summary>
    void Pause();

    /// <summary>Saves all that the guest is beside memory, while it is paused.</summary>
    /// <returns>The machine state, opaque to the migration; up to 16 MiB.</returns>
    byte[] SaveState();

    /// <summary>Gets ready for <see cref="Resume"/> where that takes something that may fail. Called, once or more often, before a guest that was let go of is known to be here again.</summary>
    /// <exception cref="Exception">The guest can't run here; its message goes to a person.</exception>
    void StandBy()
    {
    }

    /// <summary>Ends what <see cref="Pause"/> began: the guest goes on, unless <see cref="IsPaused"/>. Before the switchover, or when the guest has come back from it.</summary>
    void Resume();
}
