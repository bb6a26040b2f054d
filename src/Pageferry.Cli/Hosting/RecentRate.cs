namespace Pageferry.Cli;

/// <summary>How fast something grows of late: in the last second in which somebody looked.</summary>
internal sealed class RecentRate
{
    private static readonly TimeSpan s_window = TimeSpan.FromSeconds(1);

    private readonly Lock _lock = new();
    private readonly TimeProvider _clock = TimeProvider.System;
    private ulong _before;
    private double? _perSecond;
    private long _at;

    /// <summary>Looks.</summary>
    /// <param name="all">How much there is since the beginning.</param>
    /// <returns>How much was added per second; null if nothing was, and at the first look.</returns>
    internal double? Observe(ulong all)
    {
        lock (_lock)
        {
            TimeSpan elapsed = _at == 0 ? TimeSpan.Zero : _clock.GetElapsedTime(_at);
            if (_at == 0 || elapsed >= s_window)
            {
                // Another guest's migration begins at 0 again.
                _perSecond = all > _before && _at != 0 ? (all - _before) / elapsed.TotalSeconds : null;
                _before = all;
                _at = _clock.GetTimestamp();
            }

            return _perSecond;
        }
    }
}
