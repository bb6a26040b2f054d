using System.Diagnostics;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using Pageferry.Linux;

namespace Pageferry.Testing;

/// <summary>One of the CRIUs that eng/get-criu.sh gets.</summary>
internal sealed class CriuRelease
{
    private static readonly Lazy<bool> s_isPrepared = new(Prepare);
    private static readonly TimeSpan s_longestRun = TimeSpan.FromMinutes(2);

    private CriuRelease(string program) => Program = program;

    /// <summary>The command that starts it.</summary>
    internal string Program { get; }

    /// <summary>Finds one.</summary>
    /// <param name="version">4.1 or 4.2.</param>
    internal static CriuRelease Of(string version)
    {
        string program = PathOf(version);
        Assert.SkipUnless(File.Exists(program), $"There is no CRIU {version} in {program}: run eng/get-criu.sh.");
        _ = s_isPrepared.Value;
        return new CriuRelease(program);
    }

    /// <summary>Dumps a process, which ends, or fails the test.</summary>
    /// <param name="process">The process.</param>
    /// <param name="images">The directory of the images.</param>
    /// <param name="options">What else to tell CRIU.</param>
    internal async Task DumpAsync(MovingProcess process, string images, params string[] options)
    {
        await DumpAsync(process.Pid, images, options);
        await process.LeaveAsync();
    }

    /// <summary>Dumps a process, which ends.</summary>
    internal async Task DumpAsync(int pid, string images, params string[] options)
    {
        string log = Path.Combine(images, "dump.log");
        int code = await RunAsync(Program, ["dump", "-t", $"{pid}", "-D", images, "-v2", "-o", log, .. options]);
        Assert.True(code == 0, $"criu dump ended with {code}: {Log(log)}");
    }

    /// <summary>Starts CRIU's lazy-pages daemon, and waits until it listens.</summary>
    internal async Task<Process> StartLazyPagesAsync(string images, string work, params string[] options)
    {
        var daemon = Process.Start(Program, ["lazy-pages", "-D", images, "-W", work, "-v2", "-o", Path.Combine(work, "lazy-pages.log"), .. options]);
        var clock = Stopwatch.StartNew();
        while (!File.Exists(Path.Combine(work, "lazy-pages.socket")))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(30) && !daemon.HasExited, $"CRIU's lazy-pages daemon does not listen: {Log(Path.Combine(work, "lazy-pages.log"))}");
            await Task.Delay(10);
        }

        return daemon;
    }

    /// <summary>Starts CRIU's own page server for lazy restores, and waits until it listens.</summary>
    /// <param name="images">The images that it serves.</param>
    /// <param name="port">Where.</param>
    internal Task<Process> StartPageServerAsync(string images, out int port) => StartServingAsync(images, out port, "page-server");

    /// <summary>Dumps a process without its memory, which CRIU keeps and serves; waits until it listens.</summary>
    /// <param name="process">The process, which is frozen and ends with the dump.</param>
    /// <param name="images">The directory of the images.</param>
    /// <param name="port">Where it listens.</param>
    internal Task<Process> StartLazyDumpAsync(MovingProcess process, string images, out int port) => StartServingAsync(images, out port, "dump", "-t", $"{process.Pid}");

    /// <summary>Begins to restore a process that may never be restored.</summary>
    internal RestoredProcess BeginRestore(string images, string work, params string[] options) =>
        RestoredProcess.Start(Program, ["restore", "-d", "-D", images, "-W", work, "-v2", "-o", Path.Combine(work, "restore.log"), .. options]);

    /// <summary>Restores a process in namespaces of its own, or fails the test.</summary>
    /// <param name="images">The directory of the images.</param>
    /// <param name="work">Where CRIU logs, and where a lazy-pages daemon listens.</param>
    /// <param name="options">What else to tell CRIU.</param>
    /// <returns>The namespaces; disposing ends all that runs in them.</returns>
    internal async Task<RestoredProcess> RestoreAsync(string images, string work, params string[] options)
    {
        RestoredProcess restored = BeginRestore(images, work, options);
        try
        {
            string result = await restored.ResultAsync();
            Assert.True(result == "0", $"criu restore ended with {result}: {Log(Path.Combine(work, "restore.log"))} {Log(Path.Combine(work, "lazy-pages.log"))}");
            return restored;
        }
        catch
        {
            restored.Dispose();
            throw;
        }
    }

    private Task<Process> StartServingAsync(string images, out int port, params string[] command)
    {
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            port = ((IPEndPoint)probe.LocalEndpoint).Port;
        }

        return StartAsync(port);

        async Task<Process> StartAsync(int at)
        {
            string log = Path.Combine(images, $"{command[0]}.log");
            var server = Process.Start(Program, [.. command, "--lazy-pages", "-D", images, "--address", "127.0.0.1", "--port", $"{at}", "-v2", "-o", log]);
            var clock = Stopwatch.StartNew();
            while (!IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Any(listener => listener.Port == at))
            {
                Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60) && !server.HasExited, $"CRIU's page server does not listen: {Log(log)}");
                await Task.Delay(10);
            }

            return server;
        }
    }

    /// <summary>The last lines of a log, or nothing.</summary>
    internal static string Log(string file) => File.Exists(file) ? string.Join('\n', File.ReadLines(file).TakeLast(5)) : string.Empty;

    private static string PathOf(string version)
    {
        string cache = Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } folder ? folder : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");
        return Path.Combine(cache, "pageferry", "criu", $"criu-{version}");
    }

    /// <summary>Has CRIUs do without hardware breakpoints where these don't work, in some virtual machines: 4.2 finds out by itself, 4.1 waits for ever for one.</summary>
    private static bool Prepare()
    {
        if (CurrentProcess.MissesBreakpoints())
        {
            Environment.SetEnvironmentVariable("CRIU_FAULT", "130");
        }

        return true;
    }

    private static async Task<int> RunAsync(string program, string[] arguments)
    {
        using var process = Process.Start(program, arguments);
        using var limit = new CancellationTokenSource(s_longestRun);
        try
        {
            await process.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill();
            Assert.Fail($"'{program} {string.Join(' ', arguments)}' did not end within {s_longestRun}.");
        }

        return process.ExitCode;
    }
}
