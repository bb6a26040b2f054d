using System.Diagnostics;

namespace Pageferry.Cli;

/// <summary>Tells a guest that takes its time from one that stands still.</summary>
/// <param name="limit">How long nothing may change.</param>
internal sealed class Patience(TimeSpan limit)
{
    /// <summary>For a guest that nobody disturbs.</summary>
    internal static readonly TimeSpan Undisturbed = TimeSpan.FromSeconds(60);

    private (ulong? Passes, ulong? PagesDone) _last;
    private long _changedAt = Stopwatch.GetTimestamp();

    /// <summary>Looks at a guest's state.</summary>
    /// <param name="status">The state.</param>
    /// <exception cref="CommandException">Nothing has changed for too long.</exception>
    internal void Observe(VmStatus status)
    {
        (ulong?, ulong?) now = (status.Passes, status.Migration?.PagesDone);
        if (now != _last)
        {
            _last = now;
            _changedAt = Stopwatch.GetTimestamp();
        }
        else if (Stopwatch.GetElapsedTime(_changedAt) > limit)
        {
            throw new CommandException(
                $"A vCPU made no progress for {limit.TotalSeconds:F0} s at the {status.Migration?.Role ?? "source"}: state '{status.State}', {status.PassesHere ?? 0} passes there, {status.PagesChecked ?? 0} pages checked by all vCPUs, {status.Migration?.PagesDone ?? 0} pages arrived. {status.Error} The guest's processes were ended.");
        }
    }
}
