using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A machine of this process that a guest leaves.</summary>
internal sealed class LeavingMachine(IMachine machine) : IMigratingGuest
{
    public Guid Id { get; } = Guid.NewGuid();

    public string MachineKind => $"{machine.Host}";

    public GuestMemory Memory => machine.Memory;

    public bool IsPaused => false;

    public IDirtyTracker TrackDirtyPages() => machine.TrackDirtyPages();

    public void Throttle(int percent) => machine.Throttle(percent);

    public void Pause() => machine.Pause();

    public byte[] SaveState() => machine.SaveState();

    public void Resume() => machine.Resume();
}
