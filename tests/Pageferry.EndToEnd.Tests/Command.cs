namespace Pageferry.EndToEnd.Tests;

/// <summary>Commands that are run to their end.</summary>
internal static class Command
{
    internal static async Task DoAsync(params string[] arguments)
    {
        using PageferryProcess done = await PageferryProcess.RunAsync(arguments);
        Assert.True(done.ExitCode == 0, done.Errors);
    }

    /// <summary>Runs one that is to fail, and to say why.</summary>
    internal static async Task FailAsync(string why, params string[] arguments)
    {
        using PageferryProcess refused = await PageferryProcess.RunAsync(arguments);
        Assert.Equal(1, refused.ExitCode);
        Assert.Contains(why, refused.Errors, StringComparison.Ordinal);
    }
}
