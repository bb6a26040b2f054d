using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Migration.Tests;

namespace Pageferry.EndToEnd.Tests;

/// <summary><c>pageferry criu lazy-pages</c> in the place of CRIU's own, for real restores of both CRIUs.</summary>
[Collection(nameof(Alone))]
public sealed class CriuLazyPagesTests : IDisposable
{
    /// <summary>128 and the signal's number, as a shell has it.</summary>
    private const int EndedByTerm = 128 + 15;

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("4.1", "sequential", 64)]
    [InlineData("4.1", "random", 512)]
    [InlineData("4.2", "sequential", 512)]
    [InlineData("4.2", "random", 64)]
    public async Task Pages_come_from_the_images(string version, string order, int mebibytes)
    {
        CriuRelease criu = CriuRelease.Of(version);
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), mebibytes, order);
        await criu.DumpAsync(process, Directory("images"));
        using RestoredProcess restored = await RestoreAsync(criu);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Theory]
    [InlineData("4.1", "sequential", 512)]
    [InlineData("4.1", "random", 64)]
    [InlineData("4.2", "sequential", 64)]
    [InlineData("4.2", "random", 512)]
    public async Task Pages_come_from_a_page_server(string version, string order, int mebibytes)
    {
        CriuRelease criu = CriuRelease.Of(version);
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), mebibytes, order);
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess server = await ServeAsync();
        using RestoredProcess restored = await RestoreAsync(criu, [.. From(server)]);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Theory]
    [InlineData("4.1")]
    [InlineData("4.2")]
    public async Task Pages_come_from_CRIUs_own_page_server(string version)
    {
        CriuRelease criu = CriuRelease.Of(version);
        using var pipes = LongPipes.AllowOrSkip();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using Process server = await criu.StartPageServerAsync(Path("images"), out int port);
        using RestoredProcess restored = await RestoreFromAsync(criu, server, port);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Theory]
    [InlineData("4.1", "4.1")]
    [InlineData("4.1", "4.2")]
    [InlineData("4.2", "4.2")]
    public async Task Pages_come_from_a_dump_that_has_kept_them(string dumpedBy, string restoredBy)
    {
        using var pipes = LongPipes.AllowOrSkip();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        using Process dump = await CriuRelease.Of(dumpedBy).StartLazyDumpAsync(process, Directory("images"), out int port);
        using RestoredProcess restored = await RestoreFromAsync(CriuRelease.Of(restoredBy), dump, port);
        await process.LeaveAsync();
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_link_to_a_dump_that_is_silent_for_long_costs_no_page()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using var pipes = LongPipes.AllowOrSkip();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        using Process dump = await criu.StartLazyDumpAsync(process, Directory("images"), out int port);
        using var link = new Relay(new IPEndPoint(IPAddress.Loopback, port));
        using PageferryProcess daemon = await StartAsync("--page-server", "--port", $"{((IPEndPoint)link.EndPoint).Port}", "--max-bandwidth", "4M");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        link.IsFlowing = false;
        await daemon.WaitUntilAsync(() => daemon.HasExited || daemon.Errors.Contains("has said nothing for 20 s", StringComparison.Ordinal), "that it is silent");
        Assert.False(dump.HasExited);
        link.IsFlowing = true;
        await daemon.WaitUntilAsync(() => daemon.HasExited, "that everything has come");
        Assert.True(daemon.ExitCode == 0, daemon.Errors);
        Assert.True(dump.WaitForExit(TimeSpan.FromMinutes(1)) && dump.ExitCode == 0);
        await process.LeaveAsync();
        await process.MakePassesAsync(1);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_Redis_that_is_restored_saves_before_its_memory_has_come()
    {
        const int Keys = 200_000;
        CriuRelease criu = CriuRelease.Of("4.2");
        using RedisServer redis = await RedisServer.StartAsync(Path("."));
        await redis.FillAsync(Keys);
        string digest = await redis.AskAsync("DEBUG", "DIGEST");
        await criu.DumpAsync(redis.Pid, Directory("images"));
        using PageferryProcess daemon = await StartAsync("--max-bandwidth", "10M");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        await redis.BeginSaveAsync();
        Assert.False(daemon.HasExited, daemon.Errors);
        await redis.EndSaveAsync();
        Assert.Equal(digest, await redis.AskAsync("DEBUG", "DIGEST"));
        Assert.Equal("0", await redis.CountBadAsync(Keys));
    }

    [Fact]
    public async Task It_goes_into_the_background_logs_as_much_as_it_is_told_and_ends_when_told()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 8, "random");
        await criu.DumpAsync(process, Directory("images"));
        string[] options = ["criu", "lazy-pages", "-D", Path("images"), "-W", Directory("work"), "-d", "--pidfile", "daemon.pid", "-o", "daemon.log"];
        using (PageferryProcess ended = await PageferryProcess.RunAsync(options))
        {
            Assert.True(ended.ExitCode == 0, ended.Errors);
            using var daemon = Process.GetProcessById(int.Parse(File.ReadAllText(Path("work/daemon.pid")), CultureInfo.InvariantCulture));
            PageferryProcess.Signal(daemon.Id, "TERM");
            Assert.True(daemon.WaitForExit(TimeSpan.FromSeconds(30)));
            Assert.False(File.Exists(Path("work/lazy-pages.socket")));
        }

        using PageferryProcess started = await PageferryProcess.RunAsync([.. options, "-v3"]);
        using var again = Process.GetProcessById(int.Parse(File.ReadAllText(Path("work/daemon.pid")), CultureInfo.InvariantCulture));
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        Assert.True(again.WaitForExit(TimeSpan.FromSeconds(60)));

        // At the level that there is without -v this is not said.
        Assert.Contains("pages to come", File.ReadAllText(Path("work/daemon.log")), StringComparison.Ordinal);
        await process.MakePassesAsync(1);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_descriptor_hears_that_it_is_ready()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 1, "random");
        await CriuRelease.Of("4.2").DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = PageferryProcess.StartProgram(
            "sh", "-c", $"exec {PageferryProcess.Program} criu lazy-pages -D {Path("images")} -W {Directory("work")} --status-fd 7 7>{Path("status")}");
        await daemon.WaitUntilAsync(() => daemon.HasExited || (File.Exists(Path("status")) && new FileInfo(Path("status")).Length > 0), "that it is ready");
        Assert.True(File.Exists(Path("work/lazy-pages.socket")), daemon.Errors);
        Assert.Equal([0], await File.ReadAllBytesAsync(Path("status"), TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task A_directory_that_may_not_be_read_or_written_to_is_named_and_what_to_do()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 1, "random");
        await CriuRelease.Of("4.2").DumpAsync(process, Directory("images"));
        await RefusesAsync("Images are their dump's user's alone", Directory("images"));
        await RefusesAsync("EACCES", Directory("work"));

        async Task RefusesAsync(string says, string directory)
        {
            Run("chown", "65534", directory);
            Run("chmod", "700", directory);
            using PageferryProcess refused = await PageferryProcess.RunProgramAsync(
                "setpriv", "--bounding-set=-dac_override,-dac_read_search", PageferryProcess.Program, "criu", "lazy-pages", "-D", Path("images"), "-W", Directory("work"));
            Run("chown", "0", directory);
            Assert.Equal(1, refused.ExitCode);
            Assert.Contains(says, refused.Errors, StringComparison.Ordinal);
            Assert.Contains("root", refused.Errors, StringComparison.Ordinal);
        }

        static void Run(string program, params string[] arguments)
        {
            using Process ended = Process.Start(program, arguments);
            ended.WaitForExit();
            Assert.Equal(0, ended.ExitCode);
        }
    }

    [Fact]
    public async Task A_page_server_that_is_killed_half_way_and_started_again_goes_on_where_it_was()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 512, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess killed = await ServeAsync();

        // So slow in the background that it comes page by page, as the process asks for them.
        using PageferryProcess daemon = await StartAsync([.. From(killed), "--max-bandwidth", "4M"]);
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        killed.Kill();
        await daemon.WaitUntilAsync(() => daemon.Errors.Contains("nothing listens there", StringComparison.Ordinal) || daemon.HasExited, "that the server is gone");
        Assert.False(daemon.HasExited, "The restore was over before the server was killed.");
        Assert.Contains("failed: ", daemon.Errors, StringComparison.Ordinal);
        ulong passes = process.Passes;

        using PageferryProcess again = await ServeAsync("--port", Port(killed));
        await process.ReachAsync(passes + 2);
        Assert.Equal(0UL, process.Bad);
        await daemon.WaitUntilAsync(() => daemon.HasExited, "that everything has come");
        Assert.Equal(0, daemon.ExitCode);
        Assert.Contains("requests were repeated", daemon.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Two_restores_are_served_from_one_server_at_once()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess server = await ServeAsync();
        RestoredProcess[] both = await Task.WhenAll(RestoreAtAsync("work-1"), RestoreAtAsync("work-2"));
        using RestoredProcess one = both[0];
        using RestoredProcess other = both[1];

        // Both report in the same place: neither may find anything wrong.
        await process.MakePassesAsync(4);
        Assert.Equal(0UL, process.Bad);

        async Task<RestoredProcess> RestoreAtAsync(string work)
        {
            using PageferryProcess daemon = await StartAtAsync(work, [.. From(server)]);
            RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path(work), "--lazy-pages");
            await daemon.WaitUntilAsync(() => daemon.HasExited, "that everything has come");
            Assert.True(daemon.ExitCode == 0, daemon.Errors);
            return restored;
        }
    }

    [Theory]
    [InlineData("4.1", "4.2", "of CRIU 4.1 or older, with headers of 24 bytes: the server may be of CRIU 4.2")]
    [InlineData("4.2", "4.1", "of CRIU 4.2, with headers of 32 bytes: the server may be of CRIU 4.1 or older")]
    public async Task A_page_server_of_another_version_is_told_by_name(string dumpedBy, string servedBy, string says)
    {
        CriuRelease criu = CriuRelease.Of(dumpedBy);
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 1, "random");
        await criu.DumpAsync(process, Directory("images"));
        using Process server = await CriuRelease.Of(servedBy).StartPageServerAsync(Path("images"), out int port);
        try
        {
            using PageferryProcess daemon = await StartAsync("--page-server", "--port", $"{port}");
            using RestoredProcess waits = criu.BeginRestore(Path("images"), Path("work"), "--lazy-pages");
            await daemon.WaitUntilAsync(() => daemon.HasExited || daemon.Errors.Contains(says, StringComparison.Ordinal), "that the versions are told");
            Assert.False(daemon.HasExited, $"{daemon.Output} {daemon.Errors} {CriuRelease.Log(Path("work/restore.log"))}");
        }
        finally
        {
            server.Kill(entireProcessTree: true);
        }
    }

    [Fact]
    public async Task A_process_that_is_killed_half_way_ends_its_daemon()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 256, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess server = await ServeAsync();
        using PageferryProcess daemon = await StartAsync([.. From(server), "--max-bandwidth", "4M", "--json"]);
        using (RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages"))
        {
            // It ends with its namespace.
        }

        await daemon.WaitUntilAsync(() => daemon.HasExited, "that the process has ended");
        Assert.True(daemon.ExitCode == 0, daemon.Errors);
        await daemon.WaitUntilAsync(() => daemon.Output.EndsWith('\n'), "what it took");
        JsonElement report = JsonDocument.Parse(daemon.Output).RootElement;
        Assert.Equal(1, report.GetProperty("processes").GetInt32());
        Assert.All(report.GetProperty("faults").EnumerateArray(), faults => Assert.True(faults.GetProperty("latency_us").GetProperty("p99").GetDouble() > 0));
    }

    [Fact]
    public async Task Images_that_are_none_are_refused_by_name()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 1, "sequential");
        await CriuRelease.Of("4.2").DumpAsync(process, Directory("images"));
        using MovingProcess another = await MovingProcess.FillAndCheckAsync(Directory("another"), 8, "sequential");
        await CriuRelease.Of("4.2").DumpAsync(another, Directory("foreign"));
        string pagemap = $"pagemap-{process.Pid}.img";
        await RefusesAsync("pages-1.img", images => File.Delete($"{images}/pages-1.img"));
        await RefusesAsync("pages-1.img has 3 pages", images => File.WriteAllBytes($"{images}/pages-1.img", new byte[3 * 4096]));
        await RefusesAsync($"{pagemap} is no such image", images => File.Copy($"{images}/pstree.img", $"{images}/{pagemap}", overwrite: true));
        await RefusesAsync($"{pagemap} ends within a record", images => File.WriteAllBytes($"{images}/{pagemap}", File.ReadAllBytes($"{images}/{pagemap}")[..^1]));
        await RefusesAsync("pages-1.img has", images => File.Copy(Path($"foreign/pagemap-{another.Pid}.img"), $"{images}/{pagemap}", overwrite: true));
        await RefusesAsync($"mm-{process.Pid}.img is no such image", images => File.Copy($"{images}/inventory.img", $"{images}/mm-{process.Pid}.img", overwrite: true));
        await RefusesAsync("inventory.img is not there. Give the directory", images => File.Delete($"{images}/inventory.img"));
        await RefusesAsync($"mm-{process.Pid}.img is not there", images => File.Delete($"{images}/mm-{process.Pid}.img"));

        async Task RefusesAsync(string says, Action<string> spoil)
        {
            string images = System.IO.Directory.CreateTempSubdirectory("pageferry-spoilt-").FullName;
            try
            {
                foreach (string file in System.IO.Directory.GetFiles(Path("images"), "*.img"))
                {
                    File.Copy(file, $"{images}/{System.IO.Path.GetFileName(file)}");
                }

                spoil(images);
                using PageferryProcess refused = await PageferryProcess.RunAsync("criu", "lazy-pages", "-D", images, "-W", Directory("work"));
                Assert.Equal(1, refused.ExitCode);
                Assert.Contains(says, refused.Errors, StringComparison.Ordinal);
            }
            finally
            {
                System.IO.Directory.Delete(images, recursive: true);
            }
        }
    }

    [Fact]
    public async Task A_process_gets_what_it_touches_when_nothing_else_is_fetched()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync("--background", "none");
        using (RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages"))
        {
            await process.MakePassesAsync(2);
            Assert.Equal(0UL, process.Bad);
        }

        // The process has ended with its namespace.
        await daemon.WaitUntilAsync(() => daemon.HasExited, "that the process has ended");
    }

    [Fact]
    public async Task A_daemon_that_waits_for_a_restore_ends_when_it_is_told_to()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 8, "random");
        await CriuRelease.Of("4.2").DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync();
        daemon.Signal("TERM");
        await daemon.WaitForExitAsync();
        Assert.Equal(EndedByTerm, daemon.ExitCode);
        Assert.False(File.Exists(Path("work/lazy-pages.socket")));
    }

    [Fact]
    public async Task A_daemon_that_is_told_to_end_before_the_restore_leaves_a_dump_its_pages()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using var pipes = LongPipes.AllowOrSkip();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        using Process dump = await criu.StartLazyDumpAsync(process, Directory("images"), out int port);
        using (PageferryProcess daemon = await StartAsync("--page-server", "--port", $"{port}"))
        {
            daemon.Signal("INT");
            await daemon.WaitForExitAsync();
        }

        Assert.False(dump.WaitForExit(TimeSpan.FromMilliseconds(500)), "The dump took that for the end of a restore.");
        using RestoredProcess restored = await RestoreFromAsync(criu, dump, port);
        await process.LeaveAsync();
        await process.MakePassesAsync(1);
        Assert.Equal(0UL, process.Bad);
    }

    /// <summary>The restore is this test: it hands the process over, and goes on to no end.</summary>
    /// <param name="ends">Whether it closes its connection; else the daemon is killed.</param>
    [Theory]
    [InlineData("4.1", true)]
    [InlineData("4.2", true)]
    [InlineData("4.2", false)]
    public async Task A_restore_that_breaks_off_while_it_hands_over_lets_the_process_of_a_dump_go_on(string version, bool ends)
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        using Process dump = await CriuRelease.Of(version).StartLazyDumpAsync(process, Directory("images"), out int port);
        using PageferryProcess daemon = await StartAsync("--page-server", "--port", $"{port}", "-v3");
        using (var restore = UnixSocket.Connect(Path("work/lazy-pages.socket"), UnixSocketType.Stream))
        using (var userfaultfd = Userfaultfd.Open(UserfaultfdFeatures.None))
        {
            restore.Send(BitConverter.GetBytes(process.Pid));
            restore.Send([0], userfaultfd.Descriptor);
            await daemon.WaitUntilAsync(() => daemon.Errors.Contains("pages to come", StringComparison.Ordinal) || daemon.HasExited, "that it has the process");
            if (!ends)
            {
                daemon.Signal("KILL");
            }
        }

        await daemon.WaitForExitAsync();
        await process.MakePassesAsync(2);
        Assert.True(dump.WaitForExit(TimeSpan.FromSeconds(10)));
        Assert.NotEqual(0, dump.ExitCode);
    }

    [Fact]
    public async Task A_daemon_that_is_told_to_end_brings_what_is_missing_first()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync("--background", "none", "--json");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        daemon.Signal("TERM");
        await daemon.WaitUntilAsync(() => daemon.HasExited && daemon.Output.EndsWith('\n'), "that it ends");
        Assert.True(daemon.ExitCode == 0, daemon.Errors);
        Assert.Contains("all of it is brought first", daemon.Errors, StringComparison.Ordinal);
        Assert.True(JsonDocument.Parse(daemon.Output).RootElement.GetProperty("pages_background").GetInt64() > 0, daemon.Output);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_daemon_that_is_told_to_end_twice_does()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync("--max-bandwidth", "1M");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        daemon.Signal("TERM");
        await daemon.WaitUntilAsync(() => daemon.Errors.Contains("Told to end", StringComparison.Ordinal), "that it says what it does");
        Assert.False(daemon.HasExited);
        daemon.Signal("TERM");
        await daemon.WaitForExitAsync(TimeSpan.FromSeconds(10));
        Assert.Equal(EndedByTerm, daemon.ExitCode);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_address_space_changes_before_its_pages_have_come(bool isRemote)
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.ChangeAddressSpaceAsync(Path("."), 16);
        await criu.DumpAsync(process, Directory("images"));
        process.Go();
        using PageferryProcess? server = isRemote ? await ServeAsync() : null;
        using (RestoredProcess restored = await RestoreAsync(criu, server is null ? [] : [.. From(server)]))
        {
            await process.ReachAsync(1);
            Assert.Equal(0UL, process.Bad);
        }
    }

    [Fact]
    public async Task A_tree_of_processes_gets_its_pages()
    {
        const int Processes = 8;
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 8, "random", Processes);
        await criu.DumpAsync(process, Directory("images"));
        using RestoredProcess restored = await RestoreAsync(criu);
        await process.MakePassesAsync(20);
        Assert.All(Enumerable.Range(0, Processes), number => Assert.Equal(0UL, process.BadOf(number)));
    }

    [Fact]
    public async Task A_second_daemon_of_one_work_directory_is_refused()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 8, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync();
        PageferryProcess second = PageferryProcess.Start(["criu", "lazy-pages", "-D", Path("images"), "-W", Directory("work")]);
        await second.WaitUntilAsync(() => second.HasExited, "that it is refused");
        Assert.Contains("EADDRINUSE", second.Errors, StringComparison.Ordinal);
        second.Dispose();
    }

    private string Path(string name) => _directory.Path(name);

    private string Directory(string name) => System.IO.Directory.CreateDirectory(Path(name)).FullName;

    private static string Port(PageferryProcess server) => server.Output.TrimEnd('.', '\n').Split(':')[^1];

    private static string[] From(PageferryProcess server) => ["--page-server", "--address", "127.0.0.1", "--port", Port(server)];

    private async Task<PageferryProcess> ServeAsync(params string[] options)
    {
        PageferryProcess server = PageferryProcess.Start(["criu", "page-server", "--lazy-pages", "-D", Path("images"), .. options]);
        await server.WaitUntilAsync(() => server.Output.EndsWith('\n') || server.HasExited, "where it listens");
        Assert.False(server.HasExited, server.Errors);
        return server;
    }

    private Task<PageferryProcess> StartAsync(params string[] options) => StartAtAsync("work", options);

    private async Task<PageferryProcess> StartAtAsync(string work, params string[] options)
    {
        PageferryProcess daemon = PageferryProcess.Start(["criu", "lazy-pages", "-D", Path("images"), "-W", Directory(work), .. options]);
        await daemon.WaitUntilAsync(() => File.Exists(Path($"{work}/lazy-pages.socket")) || daemon.HasExited, "that it listens");
        Assert.False(daemon.HasExited, daemon.Errors);
        return daemon;
    }

    /// <summary>Restores, and waits until everything has come.</summary>
    private async Task<RestoredProcess> RestoreAsync(CriuRelease criu, params string[] options)
    {
        using PageferryProcess daemon = await StartAsync(options);
        RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        await daemon.WaitUntilAsync(() => daemon.HasExited, "that everything has come");
        Assert.Equal(string.Empty, daemon.Errors);
        return restored;
    }

    /// <summary>The same from a server of CRIU's, which ends well when it has served this one.</summary>
    private async Task<RestoredProcess> RestoreFromAsync(CriuRelease criu, Process server, int port)
    {
        try
        {
            RestoredProcess restored = await RestoreAsync(criu, "--page-server", "--address", "127.0.0.1", "--port", $"{port}");
            Assert.True(server.WaitForExit(TimeSpan.FromMinutes(1)) && server.ExitCode == 0);
            return restored;
        }
        finally
        {
            if (!server.HasExited)
            {
                server.Kill(entireProcessTree: true);
            }
        }
    }
}
