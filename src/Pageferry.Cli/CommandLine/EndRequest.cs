using System.Runtime.InteropServices;

namespace Pageferry.Cli;

/// <summary>Ctrl-C, SIGTERM and SIGHUP, for a command that may be in the middle of what can't be undone: it is told, and ends when it can.</summary>
internal sealed class EndRequest : IDisposable
{
    private readonly CancellationTokenSource _source = new();
    private readonly Func<bool> _mayEnd;
    private readonly PosixSignalRegistration[] _registrations;

    /// <summary>Begins to take the signals.</summary>
    /// <param name="mayEnd">Whether to end at the signal that has come; without, at the first.</param>
    internal EndRequest(Func<bool>? mayEnd = null)
    {
        _mayEnd = mayEnd ?? (static () => true);
        _registrations = EndSignals.Take(Take);
    }

    /// <summary>Cancelled by the first of them at which it may end.</summary>
    internal CancellationToken Token => _source.Token;

    /// <inheritdoc/>
    public void Dispose()
    {
        Array.ForEach(_registrations, static registration => registration.Dispose());
        _source.Dispose();
    }

    private void Take(PosixSignalContext context)
    {
        context.Cancel = true;
        if (_mayEnd())
        {
            _source.Cancel();
        }
    }
}
