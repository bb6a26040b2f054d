using System.Net;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A guest on its way out of this process.</summary>
/// <param name="guest">The guest.</param>
/// <param name="to">Where it goes.</param>
internal sealed class Departure(IMigratingGuest guest, IPEndPoint to)
{
    private readonly MigrationSource _source = new(guest);

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
                DowntimeMs = progress.Downtime > TimeSpan.Zero ? progress.Downtime.TotalMilliseconds : null,
                BackgroundMibPerS = progress.BackgroundMibPerSecond,
            };
        }
    }

    /// <summary>Moves the guest.</summary>
    /// <returns>Completes when the destination has every page; fails with <see cref="MigrationException"/>.</returns>
    internal Task RunAsync() => Task.Factory.StartNew(() => _source.Run(to), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
}
