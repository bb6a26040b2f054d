using System.Diagnostics;
using System.Globalization;

namespace Pageferry.EndToEnd.Tests;

/// <summary><c>pageferry criu page-server</c> in the place of CRIU's own, beside real CRIUs of both forms of the protocol.</summary>
[Collection(nameof(Alone))]
public sealed class CriuPageServerTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("4.1", "4.1", "sequential")]
    [InlineData("4.1", "4.2", "random")]
    [InlineData("4.2", "4.2", "random")]
    public async Task A_lazy_restore_gets_its_pages(string dumpedBy, string restoredBy, string order)
    {
        using MovingProcess process = await DumpedAsync(dumpedBy, 64, order);
        using PageferryProcess server = await ServeAsync();
        using RestoredProcess restored = await RestoreLazilyAsync(CriuRelease.Of(restoredBy), "work", server);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_tree_of_processes_gets_its_pages()
    {
        const int Processes = 8;
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 8, "random", Processes);
        await CriuRelease.Of("4.2").DumpAsync(process, Directory("images"));
        ulong[] before = [.. Enumerable.Range(0, Processes).Select(process.PassesOf)];
        using PageferryProcess server = await ServeAsync();
        using RestoredProcess restored = await RestoreLazilyAsync(CriuRelease.Of("4.2"), "work", server);
        await process.MakePassesAsync(20);
        Assert.All(Enumerable.Range(0, Processes), number =>
        {
            Assert.True(process.PassesOf(number) > before[number], $"Process {number} does not run.");
            Assert.Equal(0UL, process.BadOf(number));
        });
    }

    [Fact]
    public async Task An_address_space_changes_before_its_pages_have_come()
    {
        using MovingProcess process = await MovingProcess.ChangeAddressSpaceAsync(Path("."), 16);
        await CriuRelease.Of("4.2").DumpAsync(process, Directory("images"));
        process.Go();
        using PageferryProcess server = await ServeAsync();
        using RestoredProcess restored = await RestoreLazilyAsync(CriuRelease.Of("4.2"), "work", server);
        await process.ReachAsync(1);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task Two_restores_are_served_at_once()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await DumpedAsync("4.2", 64, "random");
        using PageferryProcess server = await ServeAsync();
        RestoredProcess[] restored = await Task.WhenAll(RestoreLazilyAsync(criu, "work-1", server), RestoreLazilyAsync(criu, "work-2", server));
        using RestoredProcess one = restored[0];
        using RestoredProcess other = restored[1];

        // Both report in the same place: neither may find anything wrong.
        await process.MakePassesAsync(4);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_server_that_is_killed_half_way_ends_that_restore_and_serves_the_next_when_it_is_started_again()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await DumpedAsync("4.2", 512, "sequential");
        using PageferryProcess killed = await ServeAsync();
        string port = Port(killed);
        using (Process daemon = await criu.StartLazyPagesAsync(Path("images"), Directory("work-1"), "--page-server", "--address", "127.0.0.1", "--port", port))
        {
            using RestoredProcess lost = await criu.RestoreAsync(Path("images"), Path("work-1"), "--lazy-pages");
            Assert.False(daemon.HasExited, "The restore was over before the server was killed.");
            killed.Kill();
            Assert.True(daemon.WaitForExit(TimeSpan.FromMinutes(1)) && daemon.ExitCode != 0);
            Assert.Contains("page-xfer: ", File.ReadAllText(Path("work-1/lazy-pages.log")), StringComparison.Ordinal);
        }

        process.ForgetBad();
        using PageferryProcess again = await StartAsync("--lazy-pages", "-D", Path("images"), "--port", port);
        using RestoredProcess restored = await RestoreLazilyAsync(criu, "work-2", again);
        await process.MakePassesAsync(1);
        Assert.Equal(0UL, process.Bad);
    }

    [Theory]
    [InlineData("4.1")]
    [InlineData("4.2")]
    public async Task A_dump_is_received_and_CRIU_restores_it(string version)
    {
        CriuRelease criu = CriuRelease.Of(version);
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "sequential");
        using PageferryProcess server = await StartAsync("-D", Directory("images"));
        await criu.DumpAsync(process, Path("images"), "--page-server", "--address", "127.0.0.1", "--port", Port(server));
        await server.WaitForExitAsync(TimeSpan.FromSeconds(30));
        Assert.True(server.ExitCode == 0, server.Errors);
        Assert.Contains("of 1 process", server.Output, StringComparison.Ordinal);

        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Directory("work"));
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_dump_that_breaks_off_leaves_no_images_and_the_process_where_it_is(bool isServerEnded)
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 256, "sequential");
        using PageferryProcess server = await StartAsync("-D", Directory("images"));
        using var dump = Process.Start(CriuRelease.Of("4.2").Program,
            ["dump", "-t", $"{process.Pid}", "-D", Path("images"), "-v2", "-o", Path("dump.log"), "--page-server", "--address", "127.0.0.1", "--port", Port(server)]);
        await server.WaitUntilAsync(() => System.IO.Directory.GetFiles(Path("images"), "pages-*").Any(file => new FileInfo(file).Length > 1 << 20) || dump.HasExited, "pages");
        Assert.False(dump.HasExited);
        if (isServerEnded)
        {
            server.Signal("TERM");
        }
        else
        {
            dump.Kill();
        }

        await server.WaitForExitAsync(TimeSpan.FromSeconds(60));
        Assert.Equal(isServerEnded ? 130 : 1, server.ExitCode);
        Assert.Contains(isServerEnded ? "Told to end in the middle of a dump" : "closed the connection", server.Errors, StringComparison.Ordinal);
        Assert.Empty(System.IO.Directory.GetFiles(Path("images"), "pages-*"));
        await process.MakePassesAsync(1);
    }

    [Fact]
    public async Task It_goes_into_the_background_says_who_it_is_and_ends_when_told()
    {
        using MovingProcess process = await DumpedAsync("4.2", 1, "sequential");
        using PageferryProcess started = await PageferryProcess.RunAsync("criu", "page-server", "--lazy-pages", "-D", Path("images"), "-W", Directory("work"), "-d", "--pidfile", "server.pid", "-vvv", "-o", "server.log");
        Assert.True(started.ExitCode == 0, started.Errors);
        using var server = Process.GetProcessById(int.Parse(File.ReadAllText(Path("work/server.pid")), CultureInfo.InvariantCulture));
        Assert.NotEqual(started.Pid, server.Id);
        using Process kill = Process.Start("kill", [$"{server.Id}"]);
        Assert.True(server.WaitForExit(TimeSpan.FromSeconds(30)));
        Assert.True(File.Exists(Path("work/server.log")));
    }

    [Fact]
    public async Task What_can_not_be_served_is_said_before_going_into_the_background()
    {
        using PageferryProcess started = await PageferryProcess.RunAsync("criu", "page-server", "--lazy-pages", "-D", Directory("images"), "-d");
        Assert.Equal(1, started.ExitCode);
        Assert.Contains("inventory.img", started.Errors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("beyond loopback", "--address", "0.0.0.0")]
    [InlineData("--tls is CRIU's own way", "--tls")]
    [InlineData("not a value of -v", "-vmany")]
    public async Task What_can_not_be_is_refused(string reason, params string[] options)
    {
        using PageferryProcess refused = await PageferryProcess.RunAsync(["criu", "page-server", "-D", Directory("images"), .. options]);
        Assert.Equal(2, refused.ExitCode);
        Assert.Contains(reason, refused.Errors, StringComparison.Ordinal);
    }

    private static string Port(PageferryProcess server) => server.Output.TrimEnd('.', '\n').Split(':')[^1];

    private static async Task<PageferryProcess> StartAsync(params string[] options)
    {
        PageferryProcess server = PageferryProcess.Start(["criu", "page-server", .. options]);
        await server.WaitUntilAsync(() => server.Output.EndsWith('\n') || server.HasExited, "where it listens");
        Assert.False(server.HasExited, server.Errors);
        return server;
    }

    private string Path(string name) => _directory.Path(name);

    private string Directory(string name) => System.IO.Directory.CreateDirectory(Path(name)).FullName;

    private async Task<MovingProcess> DumpedAsync(string version, int mebibytes, string order)
    {
        MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), mebibytes, order);
        try
        {
            await process.MakePassesAsync(1);
            await CriuRelease.Of(version).DumpAsync(process, Directory("images"));
            return process;
        }
        catch
        {
            process.Dispose();
            throw;
        }
    }

    private Task<PageferryProcess> ServeAsync() => StartAsync("--lazy-pages", "-D", Path("images"));

    /// <summary>Restores with CRIU's own daemon as the client, and waits until it has fetched everything.</summary>
    private async Task<RestoredProcess> RestoreLazilyAsync(CriuRelease criu, string work, PageferryProcess server)
    {
        using Process daemon = await criu.StartLazyPagesAsync(Path("images"), Directory(work), "--page-server", "--address", "127.0.0.1", "--port", Port(server));
        RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path(work), "--lazy-pages");
        bool ended = daemon.WaitForExit(TimeSpan.FromMinutes(2));
        Assert.True(ended && daemon.ExitCode == 0, File.ReadAllText(Path($"{work}/lazy-pages.log")));
        return restored;
    }
}
