using System.Runtime.InteropServices;

namespace Pageferry.Cli;

/// <summary>Ctrl-C and SIGTERM, for a command that may be in the middle of what can't be undone: it is told, and ends when it can.</summary>
internal sealed class EndRequest : IDisposable
{
    private readonly CancellationTokenSource _source = new();
    private readonly PosixSignalRegistration[] _registrations;

    /// <summary>Begins to take the signals.</summary>
    internal EndRequest() => _registrations = [PosixSignalRegistration.Create(PosixSignal.SIGINT, Take), PosixSignalRegistration.Create(PosixSignal.SIGTERM, Take)];

    /// <summary>Cancelled by the first of them.</summary>
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
        _source.Cancel();
    }
}
