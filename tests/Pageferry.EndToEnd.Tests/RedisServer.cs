using System.Diagnostics;
using System.Globalization;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A Redis that is moved. Its commands go over a Unix socket, which is the same in every network namespace.</summary>
internal sealed class RedisServer : IDisposable
{
    private readonly string _socket;

    private RedisServer(string socket, int pid)
    {
        _socket = socket;
        Pid = pid;
    }

    /// <summary>Its process id where it was started.</summary>
    public int Pid { get; }

    /// <summary>Starts one, without a terminal and without a configuration.</summary>
    /// <param name="directory">Where its files are.</param>
    /// <param name="network">The network namespace's name.</param>
    /// <param name="address">Where it listens, beside the Unix socket, at port 6379.</param>
    public static Task<RedisServer> StartAsync(string directory, string network, string address) => StartAsync(directory, ["nsenter", $"--net=/run/netns/{network}"], "--bind", address);

    /// <summary>Starts one that listens at its Unix socket alone.</summary>
    public static Task<RedisServer> StartAsync(string directory) => StartAsync(directory, ["env"], "--port", "0");

    private static async Task<RedisServer> StartAsync(string directory, string[] inside, params string[] options)
    {
        string pidFile = Path.Combine(directory, "redis.pid");
        string socket = Path.Combine(directory, "redis.sock");
        using PageferryProcess started = await PageferryProcess.RunProgramAsync(
            inside[0],
            [
                .. inside[1..], "redis-server", "--daemonize", "yes", "--pidfile", pidFile, "--dir", directory, "--unixsocket", socket,
                "--protected-mode", "no", "--save", "", "--enable-debug-command", "yes", "--logfile", Path.Combine(directory, "redis.log"), .. options,
            ]);
        Assert.True(started.ExitCode == 0, started.Errors);
        var clock = Stopwatch.StartNew();
        while (!File.Exists(pidFile) || !File.Exists(socket) || !File.ReadAllText(pidFile).EndsWith('\n'))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60), "Redis did not start.");
            await Task.Delay(10);
        }

        return new RedisServer(socket, int.Parse(File.ReadAllText(pidFile), CultureInfo.InvariantCulture));
    }

    /// <summary>What it answers to a command.</summary>
    public async Task<string> AskAsync(params string[] command)
    {
        using PageferryProcess client = await PageferryProcess.RunProgramAsync("redis-cli", ["-s", _socket, .. command]);
        Assert.True(client.ExitCode == 0, client.Errors);
        return client.Output.TrimEnd();
    }

    /// <summary>Fills it with keys <c>key:N</c> of which each has the value <c>value:N</c>.</summary>
    public async Task FillAsync(int keys) => Assert.Equal("OK", await AskAsync("DEBUG", "POPULATE", $"{keys}"));

    /// <summary>How many keys don't have the value that they had.</summary>
    public Task<string> CountBadAsync(int keys) => AskAsync(
        "EVAL", "local bad = 0 for i = 0, ARGV[1] - 1 do if redis.call('GET', 'key:' .. i) ~= 'value:' .. i then bad = bad + 1 end end return bad", "0", $"{keys}");

    /// <summary>Saves in the background, and waits until that has ended well.</summary>
    public async Task SaveAsync()
    {
        await BeginSaveAsync();
        await EndSaveAsync();
    }

    /// <summary>Has it fork, to save in the background.</summary>
    public async Task BeginSaveAsync() => Assert.Contains("started", await AskAsync("BGSAVE"), StringComparison.Ordinal);

    /// <summary>Waits until a background save has ended well.</summary>
    public async Task EndSaveAsync()
    {
        var clock = Stopwatch.StartNew();
        while (!(await AskAsync("INFO", "persistence")).Contains("rdb_bgsave_in_progress:0", StringComparison.Ordinal))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(120), "The background save did not end.");
            await Task.Delay(100);
        }

        Assert.Contains("rdb_last_bgsave_status:ok", await AskAsync("INFO", "persistence"), StringComparison.Ordinal);
    }

    public void Dispose()
    {
        // At the source it has ended once it has moved; at the destination it ends with its namespace.
        using Process kill = Process.Start(new ProcessStartInfo("kill", ["-9", $"{Pid}"]) { RedirectStandardError = true, UseShellExecute = false })!;
        kill.WaitForExit();
    }
}
