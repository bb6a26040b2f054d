namespace Pageferry.EndToEnd.Tests;

/// <summary><c>pageferry criu lazy-pages</c> in the place of CRIU's own, for real restores of both CRIUs.</summary>
[Collection(nameof(Alone))]
public sealed class CriuLazyPagesTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("4.1", "sequential")]
    [InlineData("4.2", "random")]
    public async Task Pages_come_from_the_images(string version, string order)
    {
        CriuRelease criu = CriuRelease.Of(version);
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, order);
        await criu.DumpAsync(process, Directory("images"));
        using RestoredProcess restored = await RestoreAsync(criu);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Theory]
    [InlineData("4.1")]
    [InlineData("4.2")]
    public async Task Pages_come_from_a_page_server(string version)
    {
        CriuRelease criu = CriuRelease.Of(version);
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess server = PageferryProcess.Start(["criu", "page-server", "--lazy-pages", "-D", Path("images")]);
        await server.WaitUntilAsync(() => server.Output.EndsWith('\n') || server.HasExited, "where it listens");
        string port = server.Output.TrimEnd('\n', '.')[(server.Output.LastIndexOf(':') + 1)..];
        using RestoredProcess restored = await RestoreAsync(criu, "--page-server", "--address", "127.0.0.1", "--port", port);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
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
    public async Task An_address_space_changes_before_its_pages_have_come()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.ChangeAddressSpaceAsync(Path("."), 16);
        await criu.DumpAsync(process, Directory("images"));
        process.Go();
        using (RestoredProcess restored = await RestoreAsync(criu))
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

    private async Task<PageferryProcess> StartAsync(params string[] options)
    {
        PageferryProcess daemon = PageferryProcess.Start(["criu", "lazy-pages", "-D", Path("images"), "-W", Directory("work"), .. options]);
        await daemon.WaitUntilAsync(() => daemon.Output.EndsWith('\n') || daemon.HasExited, "that it listens");
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
}
