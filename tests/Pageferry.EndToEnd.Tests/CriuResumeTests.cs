using System.Globalization;
using System.Text;
using static Pageferry.EndToEnd.Tests.Command;

namespace Pageferry.EndToEnd.Tests;

/// <summary><c>pageferry criu lazy-pages --holder</c>: the daemon is killed, and another one goes on with what a holder kept.</summary>
[Collection(nameof(Alone))]
public sealed class CriuResumeTests : IDisposable
{
    /// <summary>So slow in the background that pages come as the process asks for them.</summary>
    private static readonly string[] s_slowly = ["--max-bandwidth", "1M"];

    private readonly TemporaryDirectory _directory = new();

    private string Holder => Path("holder.sock");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("4.1", false, 1)]
    [InlineData("4.1", true, 1)]
    [InlineData("4.2", false, 2)]
    [InlineData("4.2", true, 2)]
    public async Task A_daemon_that_is_killed_half_way_is_gone_on_for(string version, bool isRemote, int kills)
    {
        const ulong ChecksBetween = 4000;
        CriuRelease criu = CriuRelease.Of(version);
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 256, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess? server = isRemote ? await ServeAsync() : null;
        ulong checks = Checks(process);
        PageferryProcess daemon = await StartAsync(server, s_slowly);
        try
        {
            using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
            for (int kill = 0; kill < kills; kill++)
            {
                checks += ChecksBetween;
                await daemon.WaitUntilAsync(() => Checks(process) >= checks, "that the process has checked some pages");
                await KillAsync(daemon, kill == 0 ? "TERM" : "KILL");
                daemon.Dispose();
                daemon = await ResumeAsync(server, s_slowly);
                Assert.True(PagesLeft(daemon) > 0, daemon.Errors);
            }

            await process.MakePassesAsync(2);
            Assert.Equal(0UL, process.Bad);
            await EndsWellAsync(daemon);
        }
        finally
        {
            daemon.Dispose();
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_daemon_that_is_killed_as_soon_as_its_process_runs_is_gone_on_for(bool isRemote)
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess? server = isRemote ? await ServeAsync() : null;
        using PageferryProcess killed = await StartAsync(server, "--background", "none");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        await KillAsync(killed);
        using PageferryProcess daemon = await ResumeAsync(server);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
        await EndsWellAsync(daemon);
    }

    [Fact]
    public async Task A_daemon_that_is_killed_before_the_restore_is_gone_on_for()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random", processes: 4);
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess killed = await StartAsync(server: null);
        await KillAsync(killed);

        // It hands over to nobody, who has its socket, and waits in its first fault.
        using RestoredProcess restored = criu.BeginRestore(Path("images"), Path("work"), "--lazy-pages");
        using PageferryProcess daemon = await ResumeAsync(server: null);
        Assert.Equal("0", await restored.ResultAsync());
        await process.MakePassesAsync(4);
        Assert.All(Enumerable.Range(0, 4), number => Assert.Equal(0UL, process.BadOf(number)));
        await EndsWellAsync(daemon);
    }

    [Fact]
    public async Task A_daemon_that_is_killed_while_processes_are_handed_over_is_gone_on_for()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random", processes: 4);
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess killed = await StartAsync(server: null, "-v3");

        // A holder that stands still has the daemon wait with the restore in its hands.
        holder.Signal("STOP");
        using RestoredProcess restored = criu.BeginRestore(Path("images"), Path("work"), "--lazy-pages");
        await killed.WaitUntilAsync(() => WaitsForAnswer(killed), "that it has the restore");
        await KillAsync(killed);
        holder.Signal("CONT");
        using PageferryProcess daemon = await ResumeAsync(server: null);
        Assert.Equal("0", await restored.ResultAsync());
        await process.MakePassesAsync(4);
        Assert.All(Enumerable.Range(0, 4), number => Assert.Equal(0UL, process.BadOf(number)));
        await EndsWellAsync(daemon);
    }

    [Theory]
    [InlineData("4.1", false)]
    [InlineData("4.2", true)]
    public async Task An_address_space_changes_while_daemons_are_killed(string version, bool isRemote)
    {
        const int Kills = 5;
        CriuRelease criu = CriuRelease.Of(version);
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.ChangeAddressSpaceAsync(Path("."), 16);
        await criu.DumpAsync(process, Directory("images"));
        process.Go();
        using PageferryProcess? server = isRemote ? await ServeAsync() : null;
        PageferryProcess daemon = await StartAsync(server, s_slowly);
        try
        {
            using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
            var said = new StringBuilder();
            for (int kill = 0; kill < Kills && !daemon.HasExited; kill++)
            {
                await KillAsync(daemon);
                _ = said.AppendLine(CultureInfo.InvariantCulture, $"{daemon.Errors} killed");
                daemon.Dispose();
                daemon = await ResumeAsync(server, s_slowly);
            }

            await process.ReachAsync(1);

            // A child whose userfaultfd died with the one daemon that had it is ended, which its parent counts; and nothing else is wrong.
            _ = said.Append(daemon.Errors);
            bool isChildLost = said.ToString().Contains("forked just when the daemon before died: 1 of", StringComparison.Ordinal);
            Assert.True(process.Bad == (isChildLost ? 1UL : 0), $"{process.Bad} wrong. {said}");
            await KillAsync(daemon);
            daemon.Dispose();
            daemon = await ResumeAsync(server);
            await EndsWellAsync(daemon);
        }
        finally
        {
            daemon.Dispose();
        }
    }

    [Fact]
    public async Task Nobody_goes_on_without_what_was_left()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        string[] ResumeOf(string images, string work) => ["criu", "lazy-pages", "-D", images, "-W", work, "--holder", Holder, "--resume"];
        string[] resume = ResumeOf(Path("images"), Directory("work"));
        await FailAsync("Could not reach a holder", resume);
        await FailAsync("Could not reach a holder", resume[..^1]);
        using PageferryProcess holder = await HoldAsync();
        await FailAsync("no lazy-pages daemon that is gone has left anything", resume);
        using PageferryProcess killed = await StartAsync(server: null, "--background", "none");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        await FailAsync("is served already", resume);
        await FailAsync("Another lazy-pages daemon listens there", resume[..^1]);
        await KillAsync(killed);

        // vm serve takes no restore for a guest, nor is it another work directory's.
        await FailAsync("There is nothing to serve", "vm", "serve", "--holder", Holder, "--control", Path("c.sock"));
        await FailAsync("no lazy-pages daemon that is gone has left anything", ResumeOf(Path("images"), Directory("other")));
        await FailAsync("which these images don't have", ResumeOf(await OtherImagesAsync(criu), Path("work")));
        string secret = Assert.Single(Secrets());
        string text = File.ReadAllText(secret);
        File.WriteAllText(secret, new string('0', text.Length));
        await FailAsync("no lazy-pages daemon that is gone has left anything", resume);
        File.WriteAllText(secret, text);
        using PageferryProcess daemon = await ResumeAsync(server: null);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
        await EndsWellAsync(daemon);
    }

    [Fact]
    public async Task A_holder_that_dies_is_missed_by_nobody_until_the_daemon_dies_too()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync(server: null, "--background", "none");
        using (RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages"))
        {
            await KillAsync(holder);
            await process.MakePassesAsync(2);
            Assert.Equal(0UL, process.Bad);
        }

        await daemon.WaitForExitAsync();
        Assert.Equal(0, daemon.ExitCode);
        Assert.Contains("Not all of the restore is kept any more", daemon.Errors, StringComparison.Ordinal);
        Assert.Empty(Secrets());
    }

    [Fact]
    public async Task A_holder_that_stood_still_keeps_nothing_of_what_has_ended_meanwhile()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 8, "random", processes: 2);
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync(server: null, "--max-bandwidth", "4M");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        Assert.True(KeepsUserfaultfds(holder));
        holder.Signal("STOP");
        await daemon.WaitForExitAsync(TimeSpan.FromMinutes(2));
        Assert.Contains("has said nothing for 10 s", daemon.Errors, StringComparison.Ordinal);
        Assert.True(KeepsUserfaultfds(holder));
        holder.Signal("CONT");
        await holder.WaitUntilAsync(() => !KeepsUserfaultfds(holder), "that it keeps none");
        await process.MakePassesAsync(1);

        static bool KeepsUserfaultfds(PageferryProcess holder) =>
            System.IO.Directory.GetFiles($"/proc/{holder.Pid}/fd").Any(static fd => new FileInfo(fd).LinkTarget?.Contains("userfaultfd", StringComparison.Ordinal) == true);
    }

    [Fact]
    public async Task Without_daemon_and_holder_what_is_missing_reads_as_zeros()
    {
        CriuRelease criu = CriuRelease.Of("4.2");
        using PageferryProcess holder = await HoldAsync();
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        await criu.DumpAsync(process, Directory("images"));
        using PageferryProcess daemon = await StartAsync(server: null, "--background", "none");
        using RestoredProcess restored = await criu.RestoreAsync(Path("images"), Path("work"), "--lazy-pages");
        await KillAsync(daemon);
        await KillAsync(holder);
        await FailAsync("Could not reach a holder", "criu", "lazy-pages", "-D", Path("images"), "-W", Path("work"), "--holder", Holder, "--resume");
        await process.MakePassesAsync(1);
        Assert.True(process.Bad > 0);
    }

    /// <summary>How many pages a daemon that goes on found missing.</summary>
    private static long PagesLeft(PageferryProcess daemon)
    {
        const string Before = "taken over; ";
        return daemon.Errors.Split('\n').Where(line => line.Contains(Before, StringComparison.Ordinal))
            .Sum(line => long.Parse(line.Split(Before)[1].Split(' ')[0], CultureInfo.InvariantCulture));
    }

    private static ulong Checks(MovingProcess process) => process.Stalls().Aggregate(0UL, (sum, stalls) => sum + stalls.Count);

    /// <summary>Whether a thread of it is in poll(2), in which it waits for what a holder answers and for nothing else then.</summary>
    private static bool WaitsForAnswer(PageferryProcess process)
    {
        const string Poll = "7 ";
        return System.IO.Directory.GetDirectories($"/proc/{process.Pid}/task").Any(task => File.ReadAllText($"{task}/syscall").StartsWith(Poll, StringComparison.Ordinal));
    }

    private static async Task KillAsync(PageferryProcess process, string signal = "KILL")
    {
        process.Signal(signal);
        await process.WaitForExitAsync();
    }

    private string Path(string name) => _directory.Path(name);

    private string Directory(string name) => System.IO.Directory.CreateDirectory(Path(name)).FullName;

    private string[] Secrets() => System.IO.Directory.GetFiles(Path("."), "*.secret");

    private async Task<string> OtherImagesAsync(CriuRelease criu)
    {
        using MovingProcess other = await MovingProcess.FillAndCheckAsync(Directory("another"), 1, "random");
        await criu.DumpAsync(other, Directory("foreign"));
        return Path("foreign");
    }

    private async Task<PageferryProcess> HoldAsync()
    {
        PageferryProcess holder = PageferryProcess.Start("hold", "--socket", Holder);
        await holder.WaitUntilAsync(() => holder.Output.Length > 0 || holder.HasExited, "the holder");
        Assert.False(holder.HasExited, holder.Errors);
        return holder;
    }

    private async Task<PageferryProcess> ServeAsync()
    {
        PageferryProcess server = PageferryProcess.Start("criu", "page-server", "--lazy-pages", "-D", Path("images"));
        await server.WaitUntilAsync(() => server.Output.EndsWith('\n') || server.HasExited, "where it listens");
        Assert.False(server.HasExited, server.Errors);
        return server;
    }

    private Task<PageferryProcess> StartAsync(PageferryProcess? server, params string[] options) => RunAsync(server, options, "Waits for a restore.");

    private Task<PageferryProcess> ResumeAsync(PageferryProcess? server, params string[] options) => RunAsync(server, [.. options, "--resume", "-v3"], "Goes on with the restore.");

    private async Task<PageferryProcess> RunAsync(PageferryProcess? server, string[] options, string says)
    {
        string[] from = server is null ? [] : ["--page-server", "--port", server.Output.TrimEnd('.', '\n').Split(':')[^1]];
        PageferryProcess daemon = PageferryProcess.Start(["criu", "lazy-pages", "-D", Path("images"), "-W", Directory("work"), "--holder", Holder, .. from, .. options]);
        await daemon.WaitUntilAsync(() => daemon.Output.Contains(says, StringComparison.Ordinal) || daemon.HasExited, "that it is ready");
        Assert.True(daemon.Output.Contains(says, StringComparison.Ordinal), daemon.Errors);
        return daemon;
    }

    /// <summary>Everything has come, and nothing is kept any more.</summary>
    private async Task EndsWellAsync(PageferryProcess daemon)
    {
        await daemon.WaitForExitAsync();
        Assert.True(daemon.ExitCode == 0, daemon.Errors);
        Assert.Empty(Secrets());
        Assert.False(File.Exists(Path("work/lazy-pages.socket")));
    }
}
