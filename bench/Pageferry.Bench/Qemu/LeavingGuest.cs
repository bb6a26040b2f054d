using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Bench;

/// <summary>The machine of a source.</summary>
internal sealed class LeavingGuest(IMachine machine, bool isPaused) : IMigratingGuest
{
    public Guid Id { get; } = Guid.NewGuid();

    public string MachineKind => $"{machine.Host}";

    public GuestMemory Memory => machine.Memory;

    public bool IsPaused => isPaused;

    public IDirtyTracker TrackDirtyPages() => machine.TrackDirtyPages();

    public void Throttle(int percent) => machine.Throttle(percent);

    public void Pause() => machine.Pause();

    public byte[] SaveState() => machine.SaveState();

    public void Resume() => machine.Resume();
}
