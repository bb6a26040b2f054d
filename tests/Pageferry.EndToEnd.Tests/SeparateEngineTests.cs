using System.Diagnostics;
using System.Text.Json;
using static Pageferry.EndToEnd.Tests.Command;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A destination whose engine has a process of its own, which may die or be replaced while the guest runs.</summary>
public sealed class SeparateEngineTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly HugePages _hugePages = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    /// <summary>Where a supervisor's engines come to.</summary>
    private string Engines => _directory.Path("engine.sock");

    public void Dispose()
    {
        _hugePages.Dispose();
        _directory.Dispose();
    }

    [Theory]
    [InlineData("stamp", "memfd", "postcopy")]
    [InlineData("random", "memfd", "auto")]
    [InlineData("random", "memfd", "precopy")]
    [InlineData("stamp", "memfd-2m", "postcopy")]
    [InlineData("random", "memfd-2m", "auto")]
    public async Task A_guest_moves_and_its_engine_ends(string guest, string backing, string mode)
    {
        using GuestProcess source = await GuestProcess.RunGuestAsync(guest, A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate", "--backing", backing);
        await source.MakePassesAsync(2);
        int engine = EnginePid(await destination.WaitAsync(status => EngineVersion(status) is not null, "its engine"));
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint, "--mode", mode, "--downtime-limit", mode == "precopy" ? "60s" : "100ms", "--validate");
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        JsonElement status = await destination.WaitForStateAsync("running");
        JsonElement migration = status.GetProperty("migration");
        Assert.Equal("completed", migration.GetProperty("phase").GetString());
        Assert.Equal(migration.GetProperty("pages_total").GetUInt64(), migration.GetProperty("pages_done").GetUInt64());
        Assert.Equal(0, status.GetProperty("engine").GetProperty("restarts").GetInt32());
        await destination.WaitAsync(now => !now.GetProperty("engine").TryGetProperty("pid", out _), "the end of the engine");
        Assert.False(Directory.Exists($"/proc/{engine}"));
        await destination.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("memfd")]
    [InlineData("memfd-2m")]
    public async Task An_engine_that_is_killed_again_and_again_after_the_switchover_is_a_stall(string backing)
    {
        using GuestProcess source = await GuestProcess.RunGuestAsync("random", A, "--memory", "128M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate", "--backing", backing);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "16M", "--validate");
        JsonElement status = await destination.WaitForStateAsync("arriving");
        int kills = 0;
        while (kills < 3 && State(status) == "arriving")
        {
            ulong done = Done(status);
            Kill(EnginePid(status));
            kills++;
            status = await destination.WaitAsync(
                now => State(now) == "running" || (Restarts(now) == kills && EngineVersion(now) is not null && Done(now) > done), "an engine that goes on");
            Assert.Equal(0UL, status.GetProperty("pages_wrong").GetUInt64());
        }

        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        status = await destination.WaitForStateAsync("running");
        Assert.Equal(kills, Restarts(status));
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task An_engine_that_is_stopped_is_replaced_and_never_comes_back()
    {
        using GuestProcess source = await GuestProcess.RunGuestAsync("random", A, "--memory", "128M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate", "--link-timeout", "2s");
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "16M", "--link-timeout", "2s", "--validate");
        JsonElement status = await destination.WaitForStateAsync("arriving");
        int engine = EnginePid(status);
        PageferryProcess.Signal(engine, "STOP");
        status = await destination.WaitAsync(now => Restarts(now) == 1 && EngineVersion(now) is not null, "another engine");
        Assert.NotEqual(engine, EnginePid(status));
        Assert.False(Directory.Exists($"/proc/{engine}"));
        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task An_engine_that_is_killed_before_the_switchover_leaves_the_guest_at_its_source()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "128M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate");
        await source.MakePassesAsync(2);
        using (PageferryProcess failed = source.BeginMigration(destination.Endpoint, "--mode", "precopy", "--max-bandwidth", "8M", "--downtime-limit", "1ms"))
        {
            JsonElement arriving = await destination.WaitAsync(
                status => status.TryGetProperty("migration", out JsonElement migration) && migration.GetProperty("pages_precopy").GetUInt64() > 0, "pages of a round");
            Kill(EnginePid(arriving));
            await failed.WaitForExitAsync();
            Assert.Equal(1, failed.ExitCode);
            Assert.Contains("goes on here", failed.Errors, StringComparison.Ordinal);
        }

        await source.MakePassesAsync(2);
        await destination.WaitAsync(status => Restarts(status) == 1 && EngineVersion(status) is not null, "another engine");
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_guest_that_arrives_paused_stands_still_through_the_death_of_its_engine()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate");
        await source.MakePassesAsync(2);
        using (PageferryProcess pause = await PageferryProcess.RunAsync("vm", "pause", "--control", A))
        {
            Assert.Equal(0, pause.ExitCode);
        }

        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "16M");
        JsonElement status = await destination.WaitForStateAsync("arriving");
        Kill(EnginePid(status));
        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        status = await destination.WaitForStateAsync("paused");
        Assert.Equal(0UL, status.GetProperty("passes_here").GetUInt64());
        Assert.Equal(1, Restarts(status));
        using PageferryProcess resume = await PageferryProcess.RunAsync("vm", "resume", "--control", B);
        Assert.Equal(0, resume.ExitCode);
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task An_engine_that_takes_over_speaks_tls_too()
    {
        string[] tls = await MakeCertificatesAsync(_directory.Path("tls"));
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, ["--engine", "separate", .. tls]);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, ["--mode", "postcopy", "--max-postcopy-bandwidth", "8M", "--validate", .. tls]);
        JsonElement status = await destination.WaitForStateAsync("arriving");
        Assert.True(status.GetProperty("migration").GetProperty("tls").GetBoolean());
        Kill(EnginePid(status));
        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        status = await destination.WaitForStateAsync("running");
        Assert.Equal(1, Restarts(status));
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_source_that_was_given_up_is_waited_for_again_when_somebody_says_so()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "256M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate", "--reconnect-for", "1s", "--stall-warning", "200ms");
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "8M");
        JsonElement status = await destination.WaitForStateAsync("arriving");
        source.Process.Kill();
        status = await destination.WaitForStateAsync("stalled");
        Assert.Equal("stalled", status.GetProperty("migration").GetProperty("phase").GetString());
        ulong done = Done(status);
        using (PageferryProcess resume = await PageferryProcess.RunAsync("vm", "receive", "--resume", "--control", B))
        {
            Assert.True(resume.ExitCode == 0, resume.Errors);
        }

        status = await destination.WaitAsync(now => State(now) == "stalled" || Done(now) > done, "a source that is given up again");
        Assert.Equal("stalled", State(status));
        Assert.Equal(0UL, status.GetProperty("pages_wrong").GetUInt64());
    }

    [Fact]
    public async Task Another_build_takes_over_while_the_guest_runs_and_a_program_that_is_none_does_not()
    {
        string other = PageferryProcess.Built;
        using GuestProcess source = await GuestProcess.RunGuestAsync("random", A, "--memory", "128M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate");
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "8M", "--validate");
        await destination.WaitForStateAsync("arriving");

        using (PageferryProcess refused = await PageferryProcess.RunAsync("vm", "upgrade-engine", "--control", B, "--binary", "/bin/false"))
        {
            Assert.Equal(1, refused.ExitCode);
            Assert.Contains("Could not replace the engine", refused.Errors, StringComparison.Ordinal);
        }

        JsonElement status = await destination.WaitAsync(now => EngineVersion(now) is not null, "the engine before");
        Assert.NotEqual(other, ProgramOf(EnginePid(status)), StringComparer.Ordinal);
        using (PageferryProcess upgrade = await PageferryProcess.RunAsync("vm", "upgrade-engine", "--control", B, "--binary", other))
        {
            Assert.True(upgrade.ExitCode == 0, upgrade.Errors);
        }

        status = destination.Status();
        Assert.Equal("arriving", State(status));
        Assert.Equal(other, ProgramOf(EnginePid(status)), StringComparer.Ordinal);
        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    [Fact]
    public async Task What_an_engine_elsewhere_cannot_do_is_refused_by_name()
    {
        using (PageferryProcess exits = await PageferryProcess.RunAsync("vm", "receive", "--listen", "127.0.0.1:0", "--control", B, "--engine", "separate", "--delivery", "exit"))
        {
            Assert.Equal(2, exits.ExitCode);
            Assert.Contains("--engine separate", exits.Errors, StringComparison.Ordinal);
        }

        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--backing", "anonymous");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", "separate");
        await source.MakePassesAsync(1);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint);
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("--backing memfd", migrate.Errors, StringComparison.Ordinal);
        await source.MakePassesAsync(1);
    }

    [Fact]
    public async Task An_engine_that_systemd_starts_is_started_anew_by_it_and_the_guest_goes_on()
    {
        using Systemd systemd = await Systemd.StartOrSkipAsync(
            _directory, $"Type=notify\nExecStart={PageferryProcess.Program} engine --guest {Engines}\nRestart=always\nRestartSec=0");
        Assert.Equal("active", systemd.Show("ActiveState"));
        using GuestProcess source = await GuestProcess.RunGuestAsync("random", A, "--memory", "128M", "--vcpus", "2");
        using GuestProcess destination = await ReceiveSupervisedAsync();
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "16M", "--validate");
        JsonElement status = await destination.WaitForStateAsync("arriving");
        Assert.Equal(systemd.MainPid, EnginePid(status));
        ulong done = Done(status);
        Kill(EnginePid(status));
        status = await destination.WaitAsync(now => Restarts(now) == 1 && EngineVersion(now) is not null && Done(now) > done, "the engine that systemd started");
        Assert.Equal(systemd.MainPid, EnginePid(status));

        // An engine that is replaced is one more that ends.
        using (PageferryProcess upgrade = await PageferryProcess.RunAsync("vm", "upgrade-engine", "--control", B))
        {
            Assert.True(upgrade.ExitCode == 0, upgrade.Errors);
        }

        using (PageferryProcess refused = await PageferryProcess.RunAsync("vm", "upgrade-engine", "--control", B, "--binary", "/bin/false"))
        {
            Assert.Equal(1, refused.ExitCode);
            Assert.Contains("a supervisor starts the engines", refused.Errors, StringComparison.Ordinal);
        }

        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        status = await destination.WaitForStateAsync("running");
        Assert.Equal(2, Restarts(status));
        await destination.MakePassesAsync(3);
        Assert.False(Path.Exists(Engines));

        // The service waits for the next guest.
        await systemd.WaitUntilAsync(() => systemd.Show("StatusText").StartsWith("Waits for a guest's process", StringComparison.Ordinal), "the engine to wait again");
    }

    [Fact]
    public async Task An_engine_that_stands_by_takes_the_place_of_one_that_is_stopped()
    {
        using GuestProcess source = await GuestProcess.RunGuestAsync("random", A, "--memory", "128M", "--vcpus", "2");
        using PageferryProcess first = PageferryProcess.Start("engine", "--guest", Engines);
        using GuestProcess destination = await ReceiveSupervisedAsync("--link-timeout", "2s");
        await destination.WaitAsync(status => EngineVersion(status) is not null, "its engine");
        using PageferryProcess second = PageferryProcess.Start("engine", "--guest", Engines);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "16M", "--link-timeout", "2s", "--validate");
        JsonElement status = await destination.WaitForStateAsync("arriving");
        Assert.Equal(first.Pid, EnginePid(status));
        PageferryProcess.Signal(first.Pid, "STOP");
        status = await destination.WaitAsync(now => Restarts(now) == 1 && EngineVersion(now) is not null, "the one that stands by");
        Assert.Equal(second.Pid, EnginePid(status));
        await first.WaitForExitAsync();
        await migrate.WaitForExitAsync();
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
        await second.WaitForExitAsync();
        Assert.Equal(0, second.ExitCode);
    }

    [Fact]
    public async Task An_engine_that_could_not_be_ended_is_not_taken()
    {
        using GuestProcess destination = await ReceiveSupervisedAsync();
        if (!Environment.IsPrivilegedProcess)
        {
            Assert.Skip("Only root can be another user.");
        }

        // Whoever can write to the socket can connect: so it is the user that decides, whatever the file's mode has become.
        File.SetUnixFileMode(Engines, (UnixFileMode)0b110_110_110);
        File.SetUnixFileMode(_directory.Path("."), (UnixFileMode)0b111_101_101);
        using PageferryProcess other = PageferryProcess.StartProgram("setpriv", "--reuid=65534", "--clear-groups", PageferryProcess.Program, "engine", "--guest", Engines);
        await destination.Process.WaitUntilAsync(() => destination.Process.Output.Contains("user 65534", StringComparison.Ordinal), "the refusal");
        Assert.Contains("is not taken", destination.Process.Output, StringComparison.Ordinal);
        JsonElement status = destination.Status();
        Assert.Equal(0, Restarts(status));
        Assert.False(status.GetProperty("engine").TryGetProperty("pid", out _));
    }

    private Task<GuestProcess> ReceiveSupervisedAsync(params string[] options) =>
        GuestProcess.ReceiveAsync(B, ["--engine", "separate", "--engine-socket", Engines, .. options]);

    private static void Kill(int pid)
    {
        using var process = Process.GetProcessById(pid);
        process.Kill();
    }

    private static string ProgramOf(int pid) => File.ResolveLinkTarget($"/proc/{pid}/exe", returnFinalTarget: false)!.FullName;

    private static int EnginePid(JsonElement status) => status.GetProperty("engine").GetProperty("pid").GetInt32();

    private static int Restarts(JsonElement status) => status.GetProperty("engine").GetProperty("restarts").GetInt32();

    private static string? EngineVersion(JsonElement status) =>
        status.GetProperty("engine").TryGetProperty("version", out JsonElement version) ? version.GetString() : null;

    private static string? State(JsonElement status) => status.GetProperty("state").GetString();

    private static ulong Done(JsonElement status) => status.TryGetProperty("migration", out JsonElement migration) ? migration.GetProperty("pages_done").GetUInt64() : 0;
}
