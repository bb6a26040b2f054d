using System.Diagnostics;
using System.Globalization;

namespace Pageferry.EndToEnd.Tests;

/// <summary>
/// The real systemd as the first process of a pid namespace of its own, with one service, in mount and cgroup namespaces of its own. All of it is killed when the test is done with it,
/// or ends in whatever way.
/// </summary>
internal sealed class Systemd : IDisposable
{
    private const string Program = "/usr/lib/systemd/systemd";

    private static int s_count;

    private readonly PageferryProcess _outer;
    private readonly string _pid;
    private readonly string _service;
    private readonly string _processes;

    private Systemd(PageferryProcess outer, string groups, string name)
    {
        _outer = outer;
        _pid = outer.Output.Split('\n')[0];
        _service = $"{name}.service";
        _processes = $"/proc/{outer.Pid}/root{groups}/{name}/system.slice/{_service}/cgroup.procs";
    }

    /// <summary>Starts it with a service, or skips the test where that can't be.</summary>
    /// <param name="directory">Where the unit's file is made.</param>
    /// <param name="service">What the service's section has to say.</param>
    public static async Task<Systemd> StartOrSkipAsync(TemporaryDirectory directory, string service)
    {
        if (!Environment.IsPrivilegedProcess)
        {
            Assert.Skip("Only root can start a systemd beside the machine's.");
        }

        if (!File.Exists(Program))
        {
            Assert.Skip($"{Program} is not installed.");
        }

        string name = string.Create(CultureInfo.InvariantCulture, $"pageferry-{Environment.ProcessId}-{Interlocked.Increment(ref s_count)}");
        string units = Directory.CreateDirectory(directory.Path("units")).FullName;
        await File.WriteAllTextAsync(Path.Combine(units, $"{name}.service"), $"[Unit]\nDefaultDependencies=no\n\n[Service]\n{service}\n", TestContext.Current.CancellationToken);
        string groups = Directory.CreateDirectory(directory.Path("cgroup")).FullName;
        string inner = directory.Path("inner.sh");
        await File.WriteAllTextAsync(
            inner,
            $"""
            set -e
            mount -t tmpfs tmpfs /run
            for old in $(awk '$2 ~ "^/sys/fs/cgroup" {"{ print $2 }"}' /proc/mounts | sort -r); do umount -l $old; done
            mount -t cgroup2 cgroup2 /sys/fs/cgroup
            export container=other SYSTEMD_UNIT_PATH={units} SYSTEMD_GENERATOR_PATH=/nonexistent
            exec {Program} --system --log-target=null --unit={name}.service
            """,
            TestContext.Current.CancellationToken);
        string outer = directory.Path("outer.sh");
        await File.WriteAllTextAsync(
            outer,
            $"""
            mount --make-rprivate / || exit 1
            mount -t cgroup2 cgroup2 {groups} && mkdir {groups}/{name} || exit 1
            (echo 0 > {groups}/{name}/cgroup.procs && exec unshare --pid --fork --mount --cgroup --uts --mount-proc sh {inner}) < /dev/null &
            while kill -0 $! && ! grep -q . {groups}/{name}/init.scope/cgroup.procs; do sleep 0.05; done 2> /dev/null
            cat {groups}/{name}/init.scope/cgroup.procs
            read wait
            echo 1 > {groups}/{name}/cgroup.kill
            wait
            for i in $(seq 100); do find {groups}/{name} -depth -type d -exec rmdir {"{}"} ';' 2> /dev/null; [ -d {groups}/{name} ] || exit 0; sleep 0.05; done
            """,
            TestContext.Current.CancellationToken);
        PageferryProcess started = PageferryProcess.StartProgram("unshare", "--mount", "sh", outer);
        await started.WaitUntilAsync(() => started.Output.Length > 0 || started.HasExited, "systemd");
        if (started.HasExited)
        {
            started.Dispose();
            Assert.Skip($"systemd does not start in namespaces of its own here: {started.Errors}");
        }

        var systemd = new Systemd(started, groups, name);
        await started.WaitUntilAsync(() => systemd.Show("ActiveState") is "active" or "failed", "the service");
        return systemd;
    }

    /// <summary>The service's process, as seen from here; 0 if there is none now.</summary>
    public int MainPid => File.Exists(_processes) ? File.ReadLines(_processes).Select(static line => int.Parse(line, CultureInfo.InvariantCulture)).FirstOrDefault() : 0;

    /// <summary>Waits until something holds.</summary>
    public Task WaitUntilAsync(Func<bool> holds, string what) => _outer.WaitUntilAsync(holds, what);

    /// <summary>What it says of its service.</summary>
    public string Show(string property) => Control("show", "--value", "--property", property, _service).Trim();

    /// <summary>systemctl with a verb, for its service.</summary>
    public void Do(string verb) => _ = Control(verb, _service);

    public void Dispose()
    {
        _outer.CloseInput();
        _outer.WaitForExitAsync().GetAwaiter().GetResult();
        _outer.Dispose();
    }

    private string Control(params string[] arguments)
    {
        using var control = Process.Start(new ProcessStartInfo("nsenter", ["--target", _pid, "--pid", "--mount", "--cgroup", "systemctl", .. arguments]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = control.StandardError.ReadToEndAsync();
        string output = control.StandardOutput.ReadToEnd();
        control.WaitForExit();
        return control.ExitCode == 0 ? output : $"{output} {errors.GetAwaiter().GetResult()}";
    }
}
