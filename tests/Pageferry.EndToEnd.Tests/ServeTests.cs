using System.Net;
using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Migration.Tests;
using static Pageferry.EndToEnd.Tests.Command;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A source's process dies after the switchover, and another one serves on what a holder kept.</summary>
public sealed class ServeTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    private string C => _directory.Path("c.sock");

    private string D => _directory.Path("d.sock");

    private string Holder => _directory.Path("holder.sock");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("stamp", "memfd")]
    [InlineData("random", "memfd-2m")]
    public async Task A_guest_whose_source_is_killed_gets_its_pages_from_another_process(string guest, string backing)
    {
        using var hugePages = new HugePages();
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunGuestAsync(guest, A, "--memory", "64M", "--vcpus", "2", "--backing", backing);
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--backing", "memfd");
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Assert.Single(Secrets())));

        // So that nothing but the background goes for as long as this takes.
        await DoAsync("vm", "pause", "--control", B);

        // As long as it lives, nobody else serves.
        await FailAsync("served already", "vm", "serve", "--holder", Holder, "--control", C);
        source.Process.Kill();
        using GuestProcess serving = await GuestProcess.ServeAsync(C, Holder);
        await FailAsync("served already", "vm", "serve", "--holder", Holder, "--control", D);
        Assert.Equal("leaving", serving.State);
        await DoAsync("vm", "resume", "--control", B);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
        await serving.Process.WaitForExitAsync();
        Assert.Equal(0, serving.Process.ExitCode);
        Assert.Empty(Secrets());
        await FailAsync("no source that is gone has left anything", "vm", "serve", "--holder", Holder, "--control", C);

        // It never had a byte of the guest's memory in its own, and it goes on for the next.
        Assert.False(holder.HasExited, holder.Errors);
    }

    [Fact]
    public async Task Who_serves_may_be_killed_too()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        await DoAsync("vm", "pause", "--control", B);
        source.Process.Kill();
        using (GuestProcess first = await GuestProcess.ServeAsync(C, Holder))
        {
            await first.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "post_copy", "the first one to serve");
            first.Process.Kill();
        }

        using GuestProcess second = await GuestProcess.ServeAsync(C, Holder);
        await DoAsync("vm", "resume", "--control", B);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
        await second.Process.WaitForExitAsync();
        Assert.Equal(0, second.Process.ExitCode);
    }

    [Fact]
    public async Task What_a_source_that_dies_before_the_switchover_offered_is_served_by_nobody()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(1);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--holder", Holder, "--mode", "precopy", "--max-bandwidth", "8M");
        await AwaitPreCopyAsync(source);
        source.Process.Kill();
        await FailAsync("no source that is gone has left anything", "vm", "serve", "--holder", Holder, "--control", C);
        await destination.WaitForStateAsync("waiting");
        Assert.Empty(Secrets());
    }

    [Fact]
    public async Task A_holder_that_dies_before_the_switchover_leaves_the_guest_at_the_source()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(1);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--holder", Holder, "--mode", "auto", "--max-bandwidth", "16M");
        await AwaitPreCopyAsync(source);
        holder.Kill();
        await migrate.WaitForExitAsync();
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("Could not reach a holder", migrate.Errors, StringComparison.Ordinal);
        await source.MakePassesAsync(2);
        Assert.Equal("waiting", destination.State);

        // Nor does a migration begin without it.
        await FailAsync("Could not reach a holder", "vm", "migrate", "--control", A, "--to", destination.Endpoint, "--holder", Holder);
        Assert.Equal("running", source.State);
    }

    [Fact]
    public async Task A_holder_that_is_stopped_before_the_switchover_leaves_the_guest_at_the_source()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(1);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--holder", Holder, "--mode", "auto", "--max-bandwidth", "16M");
        await AwaitPreCopyAsync(source);
        holder.Signal("STOP");
        await migrate.WaitForExitAsync();
        Assert.Equal(1, migrate.ExitCode);
        await source.MakePassesAsync(2);
        Assert.Equal("waiting", destination.State);

        // What it finds in its socket when it goes on is nothing that anybody could serve.
        holder.Signal("CONT");
        source.Process.Kill();
        await FailAsync("no source that is gone has left anything", "vm", "serve", "--holder", Holder, "--control", C);
    }

    [Fact]
    public async Task Who_serves_is_under_tls_as_the_source_was()
    {
        string[] tls = await MakeCertificatesAsync(_directory.Path("tls"));
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, tls);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint, tls);
        await DoAsync("vm", "pause", "--control", B);
        source.Process.Kill();
        using GuestProcess serving = await GuestProcess.ServeAsync(C, Holder);
        await serving.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "post_copy", "the source's successor to serve");
        Assert.True(serving.Status().GetProperty("migration").GetProperty("tls").GetBoolean());
        await DoAsync("vm", "resume", "--control", B);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
        await serving.Process.WaitForExitAsync();
        Assert.Equal(0, serving.Process.ExitCode);
    }

    [Fact]
    public async Task A_holder_that_dies_after_the_switchover_is_missed_by_nobody_until_the_source_dies_too()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        holder.Kill();
        await holder.WaitForExitAsync();
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
        await migrate.WaitForExitAsync();
        Assert.Equal(0, migrate.ExitCode);
    }

    [Fact]
    public async Task Without_source_and_holder_the_guest_stalls_and_reads_no_zeros()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        source.Process.Kill();
        holder.Kill();
        await FailAsync("Could not reach a holder", "vm", "serve", "--holder", Holder, "--control", C);
        using (PageferryProcess another = await HoldAsync())
        {
            await FailAsync("no source that is gone has left anything", "vm", "serve", "--holder", Holder, "--control", C);
        }

        await destination.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused", "the destination to notice");
        JsonElement status = destination.Status();
        Assert.Equal("arriving", status.GetProperty("state").GetString());
        Assert.Equal(0UL, status.GetProperty("pages_wrong").GetUInt64());
    }

    [Fact]
    public async Task A_guest_whose_both_sides_died_goes_on_where_it_is_served_as_it_was_at_the_switchover()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        source.Process.Kill();
        destination.Process.Kill();
        using GuestProcess serving = await GuestProcess.ServeAsync(C, Holder);
        await FailAsync("--destination-is-fenced", "recover", "rollback", "--control", C, "--yes");
        Assert.Equal("stalled", serving.State);
        await DoAsync("recover", "rollback", "--control", C, "--destination-is-fenced", "--yes");
        Assert.Equal("running", serving.State);
        await serving.MakePassesAsync(3);
        Assert.Empty(Secrets());

        // It is a guest like any other, and can leave again.
        using GuestProcess other = await GuestProcess.ReceiveAsync(D);
        using PageferryProcess moved = await serving.MigrateAsync(other.Endpoint, "--holder", Holder);
        Assert.True(moved.ExitCode == 0, moved.Errors);
        await other.MakePassesAsync(3);
    }

    [Fact]
    public async Task The_source_takes_its_guest_back_and_nobody_serves_it_then()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        destination.Process.Kill();
        await source.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused", "the source to notice");
        await DoAsync("recover", "rollback", "--control", A, "--destination-is-fenced", "--yes");
        await source.MakePassesAsync(1);
        Assert.Empty(Secrets());
        source.Process.Kill();
        await FailAsync("no source that is gone has left anything", "vm", "serve", "--holder", Holder, "--control", C);
    }

    [Fact]
    public async Task What_a_holder_kept_is_exported_and_made_one_guest_with_the_destinations_half()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, $"{relay.EndPoint}");

        // A thread that waits for a page can't be stopped, as a vCPU of KVM can.
        await DoAsync("vm", "pause", "--control", B);
        relay.IsRefusing = true;
        relay.Cut();
        source.Process.Kill();
        using GuestProcess serving = await GuestProcess.ServeAsync(C, Holder);
        await destination.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused", "the destination to notice");
        await DoAsync("recover", "export", "--control", B, "-o", _directory.Path("b.half"), "--yes");
        await DoAsync("recover", "export", "--control", C, "-o", _directory.Path("c.half"));
        await DoAsync("recover", "merge", _directory.Path("b.half"), _directory.Path("c.half"), "-o", _directory.Path("whole"));
        using GuestProcess again = await GuestProcess.RunFromAsync(_directory.Path("whole"), D);
        await DoAsync("vm", "resume", "--control", D);
        await again.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("restart")]
    [InlineData("kill")]
    public async Task What_a_holder_kept_is_served_though_it_was_started_anew_by_systemd(string verb)
    {
        using Systemd systemd = await HoldUnderSystemdAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        await DoAsync("vm", "pause", "--control", B);
        await RestartAsync(systemd, verb);

        // The source's connection is gone with the holder that it was to; the source lives.
        await FailAsync("served already", "vm", "serve", "--holder", Holder, "--control", C);
        source.Process.Kill();
        using GuestProcess serving = await GuestProcess.ServeAsync(C, Holder);
        await RestartAsync(systemd, verb);
        await FailAsync("served already", "vm", "serve", "--holder", Holder, "--control", D);
        await DoAsync("vm", "resume", "--control", B);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
        await serving.Process.WaitForExitAsync();
        Assert.Equal(0, serving.Process.ExitCode);
        Assert.Empty(Secrets());
        await AwaitStoredAsync(systemd, 0);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_guest_that_its_source_took_back_is_served_by_no_holder_that_is_started_anew(bool wasStartedAnew)
    {
        using Systemd systemd = await HoldUnderSystemdAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await MoveInPartAsync(source, destination, destination.Endpoint);
        await AwaitStoredAsync(systemd, 3);
        if (wasStartedAnew)
        {
            await RestartAsync(systemd, "restart");
        }

        // Stopped, it answers nobody, and the guest does not wait for it.
        OtherProcess.Stop(systemd.MainPid);
        destination.Process.Kill();
        await source.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused", "the source to notice");
        await DoAsync("recover", "rollback", "--control", A, "--destination-is-fenced", "--yes");
        await source.MakePassesAsync(1);
        source.Process.Kill();
        await RestartAsync(systemd, "kill");
        await FailAsync("no source that is gone has left anything", "vm", "serve", "--holder", Holder, "--control", C);
        await AwaitStoredAsync(systemd, 0);
    }

    [Fact]
    public async Task Memory_without_a_file_is_refused_before_anything_is_done()
    {
        using PageferryProcess holder = await HoldAsync();
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "16M", "--backing", "anonymous");
        await FailAsync("anonymous memory has none", "vm", "migrate", "--control", A, "--to", "127.0.0.1:1", "--holder", Holder);
        Assert.Equal("running", source.State);
    }

    private string[] Secrets() => Directory.GetFiles(Path.GetDirectoryName(Holder)!, "*.secret");

    private async Task<PageferryProcess> HoldAsync()
    {
        PageferryProcess holder = PageferryProcess.Start("hold", "--socket", Holder);
        await holder.WaitUntilAsync(() => holder.Output.Length > 0 || holder.HasExited, "the holder");
        Assert.False(holder.HasExited, holder.Errors);
        return holder;
    }

    private async Task<Systemd> HoldUnderSystemdAsync()
    {
        Systemd systemd = await Systemd.StartOrSkipAsync(
            _directory, $"Type=notify\nExecStart={PageferryProcess.Program} hold --socket {Holder}\nFileDescriptorStoreMax=64\nRestart=always\nRestartSec=50ms\nStandardOutput=append:{_directory.Path("holder.log")}");
        Assert.True(systemd.Show("ActiveState") == "active", File.ReadAllText(_directory.Path("holder.log")));
        return systemd;
    }

    /// <summary>Has systemd start the holder anew, or kills it and has systemd notice.</summary>
    private async Task RestartAsync(Systemd systemd, string verb)
    {
        int before = systemd.MainPid;
        if (verb == "kill")
        {
            OtherProcess.Kill(before);
        }
        else
        {
            systemd.Do(verb);
        }

        await systemd.WaitUntilAsync(() => systemd.Show("ActiveState") == "active" && systemd.MainPid is > 0 and int now && now != before, "the holder's next process");
    }

    private static Task AwaitStoredAsync(Systemd systemd, int count) => systemd.WaitUntilAsync(() => systemd.Show("NFileDescriptorStore") == $"{count}", $"{count} descriptors in the store");

    private static Task<JsonElement> AwaitPreCopyAsync(GuestProcess source) => source.WaitAsync(
        status => status.TryGetProperty("migration", out JsonElement moving) && moving.GetProperty("phase").GetString() == "pre_copy", "pre-copy");

    /// <summary>Moves a guest, until some of its pages have followed it.</summary>
    private async Task<PageferryProcess> MoveInPartAsync(GuestProcess source, GuestProcess destination, string to, params string[] options)
    {
        await source.MakePassesAsync(2);
        PageferryProcess migrate = source.BeginMigration(to, ["--holder", Holder, "--mode", "postcopy", "--max-postcopy-bandwidth", "2M", .. options]);
        await destination.WaitAsync(
            status => status.GetProperty("state").GetString() == "arriving" && status.GetProperty("migration").GetProperty("pages_done").GetUInt64() > 500,
            "some pages");
        return migrate;
    }
}
