using System.Globalization;
using Microsoft.Extensions.Logging;

namespace Pageferry.Cli;

/// <summary>Lines for a log file, or for standard error, down to the level that <c>-v</c> asks for.</summary>
/// <param name="output">Where they go.</param>
/// <param name="least">The least important level that is written.</param>
internal sealed class CriuLogger(TextWriter output, LogLevel least) : ILogger
{
    private readonly Lock _lock = new();

    /// <inheritdoc/>
    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    /// <inheritdoc/>
    public bool IsEnabled(LogLevel logLevel) => logLevel >= least;

    /// <inheritdoc/>
    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (!IsEnabled(logLevel))
        {
            return;
        }

        string line = string.Create(
            CultureInfo.InvariantCulture, $"{DateTime.UtcNow:HH:mm:ss.fff} {Word(logLevel)}: {formatter(state, exception)}{(exception is null ? string.Empty : $" {exception.Message}")}");
        lock (_lock)
        {
            try
            {
                output.WriteLine(line);
                output.Flush();
            }
            catch (IOException)
            {
                // The disk is full or nobody reads: what is served is none of the log's business.
            }
        }
    }

    private static string Word(LogLevel level) => level switch
    {
        LogLevel.Error or LogLevel.Critical => "error",
        LogLevel.Warning => "warning",
        LogLevel.Information => "info",
        _ => "debug",
    };
}
