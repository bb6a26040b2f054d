using System.Diagnostics;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;

namespace Pageferry.Testing;

/// <summary>One of the CRIUs that eng/get-criu.sh gets.</summary>
internal sealed class CriuRelease
{
    private CriuRelease(string program) => Program = program;

    /// <summary>The command that starts it.</summary>
    internal string Program { get; }

    /// <summary>Finds one.</summary>
    /// <param name="version">4.1 or 4.2.</param>
    internal static CriuRelease Of(string version)
    {
        string cache = Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } folder ? folder : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");
        string program = Path.Combine(cache, "pageferry", "criu", $"criu-{version}");
        Assert.SkipUnless(File.Exists(program), $"There is no CRIU {version} in {program}: run eng/get-criu.sh.");
        return new CriuRelease(program);
    }

    /// <summary>Dumps a process, which ends, or fails the test.</summary>
    /// <param name="process">The process.</param>
    /// <param name="images">The directory of the images.</param>
    /// <param name="options">What else to tell CRIU.</param>
    internal async Task DumpAsync(MovingProcess process, string images, params string[] options)
    {
        string log = Path.Combine(images, "dump.log");
        int code = await RunAsync(Program, ["dump", "-t", $"{process.Pid}", "-D", images, "-v2", "-o", log, .. options]);
        Assert.True(code == 0, $"criu dump ended with {code}: {Log(log)}");
        await process.LeaveAsync();
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
    internal Task<Process> StartPageServerAsync(string images, out int port)
    {
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            port = ((IPEndPoint)probe.LocalEndpoint).Port;
        }

        return StartAsync(port);

        async Task<Process> StartAsync(int at)
        {
            string log = Path.Combine(images, "page-server.log");
            var server = Process.Start(Program, ["page-server", "--lazy-pages", "-D", images, "--address", "127.0.0.1", "--port", $"{at}", "-v2", "-o", log]);
            var clock = Stopwatch.StartNew();
            while (!IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Any(listener => listener.Port == at))
            {
                Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60) && !server.HasExited, $"CRIU's page server does not listen: {Log(log)}");
                await Task.Delay(10);
            }

            return server;
        }
    }

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

    private static string Log(string file) => File.Exists(file) ? string.Join('\n', File.ReadLines(file).TakeLast(5)) : string.Empty;

    private static async Task<int> RunAsync(string program, string[] arguments)
    {
        using var process = Process.Start(program, arguments);
        await process.WaitForExitAsync();
        return process.ExitCode;
    }
}
