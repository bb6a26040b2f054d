using System.Globalization;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A guest on its way out of this process.</summary>
/// <param name="guest">The guest.</param>
/// <param name="to">Where it goes.</param>
/// <param name="options">How it goes there.</param>
/// <param name="settings">The same, as it was asked for.</param>
/// <param name="report">Where a report of it goes; null for none.</param>
/// <param name="keeper">Keeps what the guest is served from; null for nobody. Owned by the departure.</param>
/// <param name="taken">What another process left of it that let go of the guest; null for one that begins here.</param>
internal sealed class Departure(
    IMigratingGuest guest, NetworkEndpoint to, MigrationOptions options, MigrationSettings settings, ReportFile? report, HolderKeeper? keeper = null, SourceRecord? taken = null)
{
    private readonly MigrationSource _source = taken is null
        ? new(guest, options with { Keeper = keeper }) { IsRecorded = report is not null }
        : MigrationSource.TakeOver(guest, taken, options with { Keeper = keeper }, to.EndPoint);
    private readonly RecentRate _rate = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when the guest's process has taken note of the end.</summary>
    internal Task Ended => _ended.Task;

    /// <summary>What it is doing, or how it ended.</summary>
    internal MigrationPhase Phase => _source.Progress.Phase;

    /// <summary>Whether it ended because somebody cancelled it.</summary>
    internal bool IsCancelled => Phase == MigrationPhase.Cancelled;

    /// <summary>How far it is.</summary>
    internal MigrationStatus Status
    {
        get
        {
            MigrationProgress progress = _source.Progress;
            return MigrationStatus.Of(progress) with
            {
                Role = "source",
                Peer = to.ToString(),
                Tls = options.Security is not null,
                BytesMibPerS = _rate.Observe((ulong)progress.BytesSent) / (1 << 20),
                DowntimeMs = progress.Downtime > TimeSpan.Zero ? progress.Downtime.TotalMilliseconds : null,
                Round = Known(progress.Round),
                BandwidthMibPerS = Known(progress.BandwidthMibPerSecond),
                DirtyMibPerS = progress.BandwidthMibPerSecond > 0 ? progress.DirtyMibPerSecond : null,
                ExpectedDowntimeMs = Known(progress.ExpectedDowntime.TotalMilliseconds),
                ThrottlePercent = Known(progress.ThrottlePercent),
                Decisions = _source.Decisions,
                Report = report?.WrittenTo,
                ReportError = report?.Error,
            };
        }
    }

    /// <summary>Ends the migration: the guest goes on here.</summary>
    /// <returns>False if it is too late.</returns>
    internal bool Cancel() => _source.Cancel();

    /// <summary>What is lost with this process once the guest was let go of, in whole sentences.</summary>
    internal string Loss
    {
        get
        {
            MigrationProgress progress = _source.Progress;
            string lacks = string.Create(CultureInfo.InvariantCulture, $"The guest at {to} lacks up to {progress.PagesRemaining:N0} of its {progress.PagesTotal:N0} pages, and this process has them.");
            return keeper is { IsKept: true }
                ? $"{lacks} It would stall there until 'pageferry vm serve --holder {keeper.Path}' has come."
                : $"{lacks} It would stall there for good, and could neither be exported nor go back to its switchover.";
        }
    }

    /// <summary>Looks for a destination that was lost after the switchover, where it is now.</summary>
    /// <param name="where">Where.</param>
    /// <returns>Completes at once if it is looked for already, else when the destination has every page; fails with <see cref="MigrationException"/>.</returns>
    /// <exception cref="InvalidOperationException">No link was lost.</exception>
    internal Task ResumeAsync(NetworkEndpoint where) =>
        Task.Factory.StartNew(() => _source.Resume(where.EndPoint), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    /// <summary>The guest's memory.</summary>
    internal GuestMemory Memory => guest.Memory;

    /// <summary>Whether the destination was lost after the switchover.</summary>
    internal bool IsLost => Phase is MigrationPhase.Paused or MigrationPhase.Stalled or MigrationPhase.Mismatched;

    /// <summary>What this side has of a guest that it has let go of.</summary>
    /// <exception cref="InvalidOperationException">It was not let go of, or the destination has all of it.</exception>
    internal GuestHalf Half => _source.Half;

    /// <summary>Looks no longer for a destination that was lost after the switchover.</summary>
    internal void GiveUp() => _source.GiveUp();

    /// <summary>Has the guest go on here, as it was at the switchover.</summary>
    /// <param name="destinationIsFenced">Whether a person vouches that the destination can't run it.</param>
    /// <exception cref="InvalidOperationException">The destination is not lost.</exception>
    /// <exception cref="MigrationException">It may run the guest.</exception>
    internal void RollBack(bool destinationIsFenced) => _source.RollBack(destinationIsFenced);

    /// <summary>The guest's process has taken note of the end.</summary>
    /// <param name="isOver">Whether it can't be gone on with.</param>
    internal void End(bool isOver)
    {
        if (isOver)
        {
            options.Security?.Dispose();
            keeper?.Dispose();
        }

        _ = _ended.TrySetResult();
    }

    /// <summary>Writes the report of the migration, if one is wanted.</summary>
    /// <param name="status">How the guest is now.</param>
    /// <param name="error">Why it failed; null if it didn't.</param>
    /// <returns>Where it is, or why it isn't, for a reader; null if none is wanted.</returns>
    internal string? WriteReport(VmStatus status, string? error) => _source.Recording is { } recording
        ? report?.Write(() => MigrationReport.Of(status, guest.Id, RecordedMigration.Of(recording, faults: null), error) with { Options = settings })
        : null;

    /// <summary>Moves the guest.</summary>
    /// <returns>Completes when the destination has every page; fails with <see cref="MigrationException"/>.</returns>
    internal Task RunAsync() => Task.Factory.StartNew(() => _source.Run(to.EndPoint), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private static T? Known<T>(T value)
        where T : struct, System.Numerics.INumber<T> => T.IsZero(value) ? null : value;
}
