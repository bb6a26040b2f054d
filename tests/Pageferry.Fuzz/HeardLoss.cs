using Microsoft.Extensions.Logging;

namespace Pageferry.Fuzz;

/// <summary>Hears why a page server was left, the first time.</summary>
internal sealed class HeardLoss : ILogger, IDisposable
{
    private readonly ManualResetEventSlim _isHeard = new();
    private string _why = string.Empty;

    /// <summary>Waits for it.</summary>
    /// <exception cref="TimeoutException">It was not left.</exception>
    internal string Await(TimeSpan longest) => _isHeard.Wait(longest) ? _why : throw new TimeoutException($"It was not left within {longest}.");

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (!_isHeard.IsSet)
        {
            _why = formatter(state, exception);
            _isHeard.Set();
        }
    }

    public void Dispose() => _isHeard.Dispose();
}
