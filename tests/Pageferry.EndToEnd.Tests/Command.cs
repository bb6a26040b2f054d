namespace Pageferry.EndToEnd.Tests;

/// <summary>Commands that are run to their end.</summary>
internal static class Command
{
    internal static async Task DoAsync(params string[] arguments)
    {
        using PageferryProcess done = await PageferryProcess.RunAsync(arguments);
        Assert.True(done.ExitCode == 0, done.Errors);
    }

    /// <summary>Makes certificates for loopback.</summary>
    /// <param name="directory">Where; it is not there yet.</param>
    /// <returns>The options of a side that has one of them.</returns>
    internal static async Task<string[]> MakeCertificatesAsync(string directory)
    {
        await DoAsync("tls", "init", directory, "--host", "127.0.0.1");
        return ["--tls-cert", $"{directory}/127.0.0.1-cert.pem", "--tls-key", $"{directory}/127.0.0.1-key.pem", "--tls-ca", $"{directory}/ca-cert.pem"];
    }

    /// <summary>Runs one that is to fail, and to say why.</summary>
    internal static async Task FailAsync(string why, params string[] arguments)
    {
        using PageferryProcess refused = await PageferryProcess.RunAsync(arguments);
        Assert.Equal(1, refused.ExitCode);
        Assert.Contains(why, refused.Errors, StringComparison.Ordinal);
    }
}
