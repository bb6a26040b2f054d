using System.Diagnostics;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A client with one connection to a Redis, which it keeps: a redis-cli that gets one command after the other.</summary>
internal sealed class RedisClient : IDisposable
{
    private readonly Process _process;

    /// <summary>Starts one in a network namespace.</summary>
    public RedisClient(string network, string address) => _process = Process.Start(new ProcessStartInfo("nsenter", [$"--net=/run/netns/{network}", "redis-cli", "-h", address])
    {
        RedirectStandardInput = true,
        RedirectStandardOutput = true,
        UseShellExecute = false,
    })!;

    /// <summary>What the server answers to a command, in one line.</summary>
    public async Task<string> AskAsync(string command)
    {
        await _process.StandardInput.WriteLineAsync(command);
        await _process.StandardInput.FlushAsync();
        using var limit = new CancellationTokenSource(TimeSpan.FromMinutes(2));
        return await _process.StandardOutput.ReadLineAsync(limit.Token) ?? "nothing";
    }

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
