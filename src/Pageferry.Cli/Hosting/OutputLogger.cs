using Microsoft.Extensions.Logging;

namespace Pageferry.Cli;

/// <summary>What the libraries log, among the other things that a guest's process says.</summary>
/// <param name="output">Where to say it.</param>
internal sealed class OutputLogger(VmOutput output) : ILogger
{
    /// <inheritdoc/>
    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    /// <inheritdoc/>
    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Information;

    /// <inheritdoc/>
    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (IsEnabled(logLevel))
        {
            output.Write("log", formatter(state, exception));
        }
    }
}
