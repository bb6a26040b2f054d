using System.Diagnostics;
using System.Globalization;

namespace Pageferry.Cli;

/// <summary>What happened in a run, and when, from any thread.</summary>
internal sealed class TortureEvents
{
    private readonly long _began = Stopwatch.GetTimestamp();
    private readonly Lock _lock = new();
    private readonly List<string> _lines = [];

    /// <summary>What happened, the earliest first.</summary>
    internal IReadOnlyList<string> Lines
    {
        get
        {
            lock (_lock)
            {
                return [.. _lines];
            }
        }
    }

    /// <summary>Adds what happens now.</summary>
    internal void Add(string what)
    {
        lock (_lock)
        {
            _lines.Add(string.Create(CultureInfo.InvariantCulture, $"{Stopwatch.GetElapsedTime(_began).TotalMilliseconds,7:F0} ms  {what}"));
        }
    }
}
