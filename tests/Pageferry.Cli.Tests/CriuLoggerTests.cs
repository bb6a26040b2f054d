using Microsoft.Extensions.Logging;

namespace Pageferry.Cli.Tests;

public sealed class CriuLoggerTests
{
    [Fact]
    public void Why_something_failed_is_logged_too()
    {
        using var output = new StringWriter();
        var logger = new CriuLogger(output, LogLevel.Warning);
        logger.Log(LogLevel.Error, default, "The engine failed.", new IOException("The pages are gone."), static (state, _) => state);
        logger.Log(LogLevel.Information, default, "Nobody wants to know.", null, static (state, _) => state);
        Assert.EndsWith(" error: The engine failed. The pages are gone.\n", output.ToString(), StringComparison.Ordinal);
    }
}
