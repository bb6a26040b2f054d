using System.Runtime.InteropServices;
using Pageferry.Criu;

namespace Pageferry.Cli;

/// <summary>Ctrl-C, SIGTERM and SIGHUP, for a lazy-pages daemon: they end it, the first of them only if nobody loses memory by that.</summary>
internal sealed class LazyEnd : IDisposable
{
    private readonly LazyRestore _restore;
    private readonly PosixSignalRegistration[] _registrations;
    private int _signals;

    /// <summary>Begins to take the signals.</summary>
    /// <param name="restore">What is served.</param>
    internal LazyEnd(LazyRestore restore)
    {
        _restore = restore;
        _registrations = EndSignals.Take(Take);
    }

    /// <inheritdoc/>
    public void Dispose() => Array.ForEach(_registrations, static registration => registration.Dispose());

    private void Take(PosixSignalContext context) => context.Cancel = Interlocked.Increment(ref _signals) == 1 && !_restore.TryEnd();
}
