using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A guest that another process let go of, and whose memory is served from here: it runs elsewhere, and here only if it is rolled back.</summary>
/// <param name="record">What that process left.</param>
/// <param name="memory">The guest's memory.</param>
/// <param name="standBy">Makes what it could run on here.</param>
/// <param name="resume">Lets it run here, from the machine state that it is given.</param>
internal sealed class ServedGuest(SourceRecord record, GuestMemory memory, Action standBy, Action<SourceRecord> resume) : IMigratingGuest
{
    /// <inheritdoc/>
    public Guid Id => record.Layout.GuestId;

    /// <inheritdoc/>
    public string MachineKind => record.Layout.MachineKind;

    /// <inheritdoc/>
    public GuestMemory Memory => memory;

    /// <inheritdoc/>
    public bool IsPaused => record.IsPaused;

    /// <inheritdoc/>
    public IDirtyTracker TrackDirtyPages() => throw NotHere();

    /// <inheritdoc/>
    public void Throttle(int percent) => throw NotHere();

    /// <inheritdoc/>
    public void Pause() => throw NotHere();

    /// <inheritdoc/>
    public byte[] SaveState() => throw NotHere();

    /// <inheritdoc/>
    public void StandBy() => standBy();

    /// <inheritdoc/>
    public void Resume() => resume(record);

    private static InvalidOperationException NotHere() => new("The guest does not run here: only its memory is served.");
}
