using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>A machine as the source of a migration sees it.</summary>
/// <param name="id">Tells the guest apart from all others, wherever it runs.</param>
/// <param name="machine">The machine that the guest runs on.</param>
/// <param name="pause">Whether it stands still.</param>
internal sealed class LeavingGuest(Guid id, IMachine machine, GuestPause pause) : IMigratingGuest
{
    /// <inheritdoc/>
    public Guid Id => id;

    /// <inheritdoc/>
    public string MachineKind => new MachineKind(HostWord.Of(machine.Host), machine.VcpuCount).ToString();

    /// <inheritdoc/>
    public GuestMemory Memory => machine.Memory;

    /// <inheritdoc/>
    public bool IsPaused => pause.IsPaused;

    /// <inheritdoc/>
    public IDirtyTracker TrackDirtyPages() => machine.TrackDirtyPages();

    /// <inheritdoc/>
    public void Throttle(int percent) => machine.Throttle(percent);

    /// <inheritdoc/>
    public void Pause() => pause.Hold();

    /// <inheritdoc/>
    public byte[] SaveState() => machine.SaveState();

    /// <inheritdoc/>
    public void Resume() => pause.Release();
}
