using Microsoft.Extensions.Logging;

namespace Pageferry.Cli;

/// <summary>What the libraries log in an engine's process: the guest's says it.</summary>
/// <param name="calls">Reaches the guest's process.</param>
internal sealed class CallLogger(EngineChannel calls) : ILogger
{
    /// <inheritdoc/>
    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    /// <inheritdoc/>
    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Information;

    /// <inheritdoc/>
    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (!IsEnabled(logLevel))
        {
            return;
        }

        try
        {
            _ = calls.Ask(new EngineMessage { What = EngineMessage.Log, Text = formatter(state, exception) });
        }
        catch (Exception e) when (e is IOException or CommandException)
        {
            // The guest's process is gone, and this one about to end.
        }
    }
}
