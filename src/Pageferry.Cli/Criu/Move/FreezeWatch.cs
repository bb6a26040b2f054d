using System.Diagnostics;

namespace Pageferry.Cli;

/// <summary>Looks when a process is frozen: when its downtime begins.</summary>
internal sealed class FreezeWatch : IDisposable
{
    private static readonly TimeSpan s_between = TimeSpan.FromMilliseconds(1);

    private readonly CancellationTokenSource _ended = new();
    private readonly Thread _thread;
    private long _lastSeen = Stopwatch.GetTimestamp();

    /// <summary>Begins to look at a process that runs.</summary>
    /// <param name="pid">The process.</param>
    internal FreezeWatch(int pid)
    {
        _thread = new Thread(() => Watch(pid)) { IsBackground = true, Name = "freeze" };
        _thread.Start();
    }

    /// <summary>When it was last seen not frozen, in <see cref="Stopwatch"/>'s ticks: a millisecond early rather than late.</summary>
    internal long FrozenAt => Volatile.Read(ref _lastSeen);

    /// <inheritdoc/>
    public void Dispose()
    {
        _ended.Cancel();
        _thread.Join();
        _ended.Dispose();
    }

    private void Watch(int pid)
    {
        while (!_ended.IsCancellationRequested)
        {
            long now = Stopwatch.GetTimestamp();
            if (ProcFiles.Stat(pid) is ["t", ..])
            {
                return;
            }

            Volatile.Write(ref _lastSeen, now);
            Thread.Sleep(s_between);
        }
    }
}
