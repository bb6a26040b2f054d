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

    /// <summary>Stops the guest; returns when no vCPU runs any more.</summary>
    void Pause();

    /// <summary>Saves all that the guest is beside memory, while it is paused.</summary>
    /// <returns>The machine state, opaque to the migration; up to 16 MiB.</returns>
    byte[] SaveState();

    /// <summary>Lets the guest go on: the migration failed before switchover.</summary>
    void Resume();
}
