using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>One lazy restore, with one or the other daemon, and what was seen of it from outside and by the process.</summary>
/// <param name="criu">Who restores.</param>
/// <param name="folder">Where to work.</param>
/// <param name="images">Where the images are.</param>
/// <param name="mebibytes">The process's memory.</param>
internal sealed class CriuRun(string criu, string folder, string images, int mebibytes)
{
    private const ulong PagesPerMebibyte = 256;

    /// <summary>How long anything may take: much longer than it does.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(1);

    /// <summary>Waits for something.</summary>
    public static void Await(Func<bool> holds, string what)
    {
        long began = Stopwatch.GetTimestamp();
        while (!holds())
        {
            if (Stopwatch.GetElapsedTime(began) > s_patience)
            {
                throw new InvalidOperationException($"Waited {s_patience} for {what}.");
            }

            Thread.Sleep(s_look);
        }
    }

    /// <summary>Restores the process and waits until all of its pages are there and it has touched each.</summary>
    /// <param name="process">What was dumped.</param>
    /// <param name="daemon">The command of the daemon.</param>
    public JsonObject Measure(MovedProcess process, params string[] daemon)
    {
        string work = Directory.CreateDirectory(Path.Combine(folder, "work")).FullName;
        string socket = Path.Combine(work, "lazy-pages.socket");
        File.Delete(socket);
        process.Forget();
        long started = Stopwatch.GetTimestamp();
        using Process lazy = Start(["bash", "-c", "TIMEFORMAT='%U %S'; time \"$@\" 2>/dev/null", "bash", .. daemon, "-D", images, "-W", work]);
        Process? restored = null;
        try
        {
            Await(() => File.Exists(socket) || lazy.HasExited, "the daemon to listen");
            double ready = Stopwatch.GetElapsedTime(started).TotalMilliseconds;
            ulong wallClock = (ulong)(DateTime.UtcNow - DateTime.UnixEpoch).Ticks * 100;
            long began = Stopwatch.GetTimestamp();

            // In namespaces of its own: with the first process of them ends whatever else is there.
            const string Script = "ip link set lo up; \"$@\" >&2; echo $?; exec sleep infinity";
            string[] restore = [criu, "restore", "-d", "-D", images, "-W", work, "-v2", "-o", Path.Combine(folder, "restore.log"), "--lazy-pages"];
            restored = Start(["unshare", "-p", "-f", "-m", "--mount-proc", "-n", "--kill-child", "sh", "-c", Script, "sh", .. restore]);
            if (restored.StandardOutput.ReadLine() is not "0")
            {
                throw new InvalidOperationException($"The restore failed: {string.Join(' ', File.ReadLines(Path.Combine(folder, "restore.log")).TakeLast(5))}");
            }

            double restoreMs = Stopwatch.GetElapsedTime(began).TotalMilliseconds;
            Await(() => process.PagesChecked >= (ulong)mebibytes * PagesPerMebibyte, "the process to go over its memory");
            double touched = Stopwatch.GetElapsedTime(began).TotalMilliseconds;
            (double p50, double p99, double p999) = (process.StallUs(0.5), process.StallUs(0.99), process.StallUs(0.999));
            lazy.WaitForExit();
            double allIn = Stopwatch.GetElapsedTime(began).TotalMilliseconds;
            if (lazy.ExitCode != 0 || process.WrongWords != 0)
            {
                throw new InvalidOperationException($"The daemon ended with {lazy.ExitCode}, and the process found {process.WrongWords} words wrong.");
            }

            double cpu = lazy.StandardError.ReadToEnd().Split(' ', StringSplitOptions.RemoveEmptyEntries).Sum(seconds => double.Parse(seconds, CultureInfo.InvariantCulture));
            return new JsonObject
            {
                ["daemon_ready_ms"] = Math.Round(ready, 1),
                ["first_instruction_ms"] = Math.Round((process.RanAgainAt - wallClock) / 1e6, 1),
                ["restore_ms"] = Math.Round(restoreMs, 1),
                ["all_touched_ms"] = Math.Round(touched, 1),
                ["all_in_ms"] = Math.Round(allIn, 1),
                ["stall_p50_us"] = Math.Round(p50, 2),
                ["stall_p99_us"] = Math.Round(p99, 1),
                ["stall_p99.9_us"] = Math.Round(p999, 1),
                ["daemon_cpu_ms_per_gib"] = Math.Round(cpu * 1000 * 1024 / mebibytes, 1),
            };
        }
        finally
        {
            lazy.Kill(entireProcessTree: true);
            restored?.Kill();
            restored?.WaitForExit();
            restored?.Dispose();
        }
    }

    /// <summary>Starts a program whose output is read here.</summary>
    public static Process Start(string[] command) => Process.Start(
        new ProcessStartInfo(command[0], command[1..]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = command[0] == "bash" })!;
}
