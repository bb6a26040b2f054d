using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.RegularExpressions;
using Pageferry.Linux;
using Pageferry.Migration.Tests;

namespace Pageferry.EndToEnd.Tests;

/// <summary><c>pageferry criu move</c> and <c>criu receive</c>: real processes and a real Redis, moved by a real CRIU between namespaces.</summary>
[Collection(nameof(Alone))]
public sealed partial class CriuMoveTests : IDisposable
{
    private const string Service = "10.99.0.1";

    /// <summary>The message that lets the process run at the destination.</summary>
    private static readonly byte[] s_start = [9, 0, 0, 0, 0, 0, 0, 0];

    /// <summary>So slow in the background that memory comes for longer than it takes to harm somebody.</summary>
    private static readonly string[] s_slowly = ["--max-bandwidth", "8M"];

    private readonly TemporaryDirectory _directory = new();
    private readonly CriuRelease _criu = CriuRelease.Of("4.2");
    private readonly List<IDisposable> _started = [];
    private readonly List<int> _moved = [];

    public void Dispose()
    {
        _started.AsEnumerable().Reverse().ToList().ForEach(started => started.Dispose());

        // A move that was killed leaves its images.
        _moved.SelectMany(ImagesOf).ToList().ForEach(static images => Directory.Delete(images, recursive: true));
        _directory.Dispose();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public async Task A_process_moves_with_its_descendants(int processes)
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64 / processes, "random", processes);
        PageferryProcess destination = await ReceiveAsync(options: ["--json", "--background", "locality"]);
        process.ForgetGap();
        PageferryProcess move = await MoveAsync(process.Pid, destination, "--json");
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        using (var done = JsonDocument.Parse(move.Output.TrimEnd().Split('\n')[^1]))
        {
            Assert.Equal("done", done.RootElement.GetProperty("phase").GetString());

            // The process's own clock tells the same: it waits for its first pages before it looks again, and the news that it runs has to get past it on a busy machine.
            double downtime = done.RootElement.GetProperty("downtime_ms").GetDouble();
            Assert.InRange(process.LongestGap.TotalMilliseconds, (downtime * 0.7) - 100, (downtime * 1.5) + 250);
            Assert.InRange(done.RootElement.GetProperty("pages_sent").GetDouble(), 64 * 255 / 2, double.MaxValue);
        }

        await process.LeaveAsync();
        await process.MakePassesAsync(2);
        Assert.All(Enumerable.Range(0, processes), number => Assert.Equal(0UL, process.BadOf(number)));
        await destination.WaitUntilAsync(() => destination.Output.Contains("has all its memory", StringComparison.Ordinal), "that it has its memory");
        using (var done = JsonDocument.Parse(destination.Output.TrimEnd().Split('\n')[^1]))
        {
            JsonElement memory = done.RootElement.GetProperty("memory");
            Assert.Equal(processes, memory.GetProperty("processes").GetInt32());
            Assert.InRange(memory.GetProperty("pages_demand").GetInt64() + memory.GetProperty("pages_background").GetInt64(), 64 * 255 / 2, long.MaxValue);
        }

        Assert.False(destination.HasExited, "The first process of a pid namespace stays as long as what it received.");
    }

    [Fact]
    public void Whether_breakpoints_work_is_seen_here_as_a_newer_CRIU_sees_it()
    {
        using var check = Process.Start(_criu.Program, ["check", "--feature", "breakpoints"]);
        check.WaitForExit();
        Assert.Equal(check.ExitCode != 0, CurrentProcess.MissesBreakpoints());
    }

    /// <summary>CRIU 4.1 waits for ever for a hardware breakpoint where these don't work; the other tests tell all CRIUs.</summary>
    [Fact]
    public async Task A_process_moves_with_a_CRIU_that_does_not_see_whether_breakpoints_work()
    {
        string[] without = ["-u", "CRIU_FAULT"];
        string older = CriuRelease.Of("4.1").Program;
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        _moved.Add(process.Pid);
        PageferryProcess destination = await ListeningAsync(Start(PageferryProcess.StartProgram(
            "env", [.. without, Temporary, "unshare", "-p", "-f", "-m", "--mount-proc", "--kill-child", PageferryProcess.Program, "criu", "receive", "--listen", "127.0.0.1:0", "--criu", older])));
        PageferryProcess move = Start(PageferryProcess.StartProgram(
            "env", [.. without, PageferryProcess.Program, "criu", "move", $"{process.Pid}", "--to", EndpointOf(destination), "--criu", older]));
        await move.WaitForExitAsync();
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        await process.LeaveAsync();
        await process.MakePassesAsync(1);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_Redis_of_a_million_keys_moves_under_tls_and_saves_before_its_memory_has_come()
    {
        const int Keys = 1_000_000;
        NetworkPair network = Network();
        using var certificates = new TestCertificates();
        certificates.Sign("a", ["a.example"]);
        certificates.Sign("b", [NetworkPair.AddressB]);
        using RedisServer redis = await RedisServer.StartAsync(Path("."), network.A, "127.0.0.1");
        await redis.FillAsync(Keys);
        string digest = await redis.AskAsync("DEBUG", "DIGEST");
        PageferryProcess destination = await ReceiveInAsync(network.B, $"{NetworkPair.AddressB}:0", ["--max-bandwidth", "40M", .. Tls("b")]);
        PageferryProcess move = StartMoveFrom(network.A, redis.Pid, destination, Tls("a"));
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Runs at", StringComparison.Ordinal), "that it runs");

        // It forks with most of its pages missing.
        await redis.BeginSaveAsync();
        Assert.False(move.HasExited, move.Errors + destination.Errors);
        await redis.EndSaveAsync();
        await move.WaitForExitAsync();
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        Assert.Equal(digest, await redis.AskAsync("DEBUG", "DIGEST"));
        Assert.Equal("0", await redis.CountBadAsync(Keys));
        TestContext.Current.SendDiagnosticMessage(move.Output);

        string[] Tls(string side) => ["--tls-cert", certificates.Path($"{side}-cert.pem"), "--tls-key", certificates.Path($"{side}-key.pem"), "--tls-ca", certificates.Authority];
    }

    [Fact]
    public async Task A_Redis_of_a_million_keys_moves_with_its_address_and_its_clients_stay_connected()
    {
        const int Keys = 1_000_000;
        NetworkPair network = Network();
        using var clients = new ClientNetwork(network, Service);
        using RedisServer redis = await RedisServer.StartAsync(Path("."), network.A, Service);
        await redis.FillAsync(Keys);
        string digest = await redis.AskAsync("DEBUG", "DIGEST");
        using var idle = clients.Connect();
        using var writer = clients.Connect();
        string idleId = await idle.AskAsync("CLIENT ID");
        string writerId = await writer.AskAsync("CLIENT ID");
        long writes = 0;
        using var enough = new CancellationTokenSource();
        Task writing = Task.Run(async () =>
        {
            while (!enough.IsCancellationRequested)
            {
                // Each write arrives once, and is answered once.
                Assert.Equal($"{++writes}", await writer.AskAsync("INCR written"));
            }
        });
        PageferryProcess destination = await ReceiveInAsync(network.B, $"{NetworkPair.AddressB}:0", ["--insecure-network"]);
        PageferryProcess move = StartMoveFrom(network.A, redis.Pid, destination, "--insecure-network", "--tcp-established");
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Runs at", StringComparison.Ordinal), "that it runs");
        clients.Route(network.B);
        await move.WaitForExitAsync();
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        await redis.SaveAsync();
        long then = Interlocked.Read(ref writes);
        await move.WaitUntilAsync(() => writing.IsCompleted || Interlocked.Read(ref writes) > then + 10, "that writes go on");
        await enough.CancelAsync();
        await writing;
        Assert.Equal(idleId, await idle.AskAsync("CLIENT ID"));
        Assert.Equal(writerId, await writer.AskAsync("CLIENT ID"));
        Assert.Equal($"{writes}", await redis.AskAsync("GETDEL", "written"));
        Assert.Equal(digest, await redis.AskAsync("DEBUG", "DIGEST"));
        Assert.Equal("0", await redis.CountBadAsync(Keys));
    }

    /// <summary>As behind a firewall that has forgotten the connections it let through: nobody is told that they ended.</summary>
    [Fact]
    public async Task Connections_that_die_without_a_word_are_made_again()
    {
        const int Keys = 100_000;
        NetworkPair network = Network();
        using RedisServer redis = await RedisServer.StartAsync(Path("."), network.A, "127.0.0.1");
        await redis.FillAsync(Keys);
        string digest = await redis.AskAsync("DEBUG", "DIGEST");
        PageferryProcess destination = await ReceiveInAsync(network.B, $"{NetworkPair.AddressB}:0", ["--insecure-network", "--max-bandwidth", "1M"]);
        PageferryProcess move = StartMoveFrom(network.A, redis.Pid, destination, "--insecure-network");
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Runs at", StringComparison.Ordinal), "that it runs");

        // 10.77.0.1, in the order of its bytes here.
        string[] ports = [.. File.ReadLines($"/proc/{ChildOf(destination)}/net/tcp").Select(static line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[2])
            .Where(static remote => remote.StartsWith("01004D0A:", StringComparison.Ordinal)).Select(static remote => $"{int.Parse(remote.AsSpan(9), NumberStyles.HexNumber, CultureInfo.InvariantCulture)}")];
        Assert.Equal(2, ports.Length);
        using (Process nft = Process.Start(
            "nsenter",
            [
                $"--net=/run/netns/{network.B}", "nft",
                $"add table ip lost; add chain ip lost in {{ type filter hook input priority 0; }}; add rule ip lost in tcp sport {{ {string.Join(", ", ports)} }} drop",
            ]))
        {
            await nft.WaitForExitAsync(TestContext.Current.CancellationToken);
            Assert.Equal(0, nft.ExitCode);
        }

        await move.WaitForExitAsync(TimeSpan.FromSeconds(90));
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        Assert.Contains("it is looked for", move.Errors, StringComparison.Ordinal);
        Assert.Equal(digest, await redis.AskAsync("DEBUG", "DIGEST"));
    }

    /// <summary>CRIU unlocks connections before it serves pages, and never again.</summary>
    [Theory]
    [InlineData("INT")]
    [InlineData("KILL")]
    public async Task A_Redis_whose_move_is_given_up_keeps_its_clients(string signal)
    {
        NetworkPair network = Network();
        using var clients = new ClientNetwork(network, Service);
        using RedisServer redis = await RedisServer.StartAsync(Path("."), network.A, Service);
        await redis.FillAsync(1000);
        using var client = clients.Connect();
        string id = await client.AskAsync("CLIENT ID");
        PageferryProcess destination = await ReceiveInAsync(network.B, $"{NetworkPair.AddressB}:0", ["--insecure-network"], await SlowCriuAsync());
        PageferryProcess move = StartMoveFrom(network.A, redis.Pid, destination, "--insecure-network", "--tcp-established");
        await move.WaitUntilAsync(() => File.Exists(Path("restoring")) || move.HasExited, "that it is restored");
        Assert.Equal('t', StateOf(redis.Pid));
        move.Signal(signal);
        Assert.Equal(id, await client.AskAsync("CLIENT ID").WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken));
        await move.WaitForExitAsync();
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        Assert.Equal("0", await redis.CountBadAsync(1000));
    }

    [Fact]
    public async Task A_Redis_with_a_client_is_refused_without_a_word_on_connections_and_goes_on()
    {
        NetworkPair network = Network();
        using var clients = new ClientNetwork(network, Service);
        using RedisServer redis = await RedisServer.StartAsync(Path("."), network.A, Service);
        await redis.FillAsync(1000);
        using var client = clients.Connect();
        string id = await client.AskAsync("CLIENT ID");
        PageferryProcess destination = await ReceiveInAsync(network.B, $"{NetworkPair.AddressB}:0", ["--insecure-network"]);
        PageferryProcess move = await MoveFromAsync(network.A, redis.Pid, destination, "--insecure-network");
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("--tcp-established", move.Errors, StringComparison.Ordinal);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        Assert.Equal(id, await client.AskAsync("CLIENT ID"));
        Assert.Equal("0", await redis.CountBadAsync(1000));
    }

    [Fact]
    public async Task A_process_whose_ids_are_taken_is_refused_before_it_is_frozen()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 1, "sequential");
        PageferryProcess destination = Start(PageferryProcess.Start("criu", "receive", "--listen", "127.0.0.1:0", "--criu", _criu.Program));
        PageferryProcess move = await MoveAsync(process.Pid, await ListeningAsync(destination));
        Assert.Equal(1, move.ExitCode);
        Assert.Contains($"{process.Pid}", move.Errors, StringComparison.Ordinal);
        Assert.Contains("unshare -p", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        Assert.False(destination.HasExited);
    }

    [Fact]
    public async Task A_receiver_that_is_killed_before_the_process_runs_there_leaves_it_running_here()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        (PageferryProcess destination, PageferryProcess move) = await MoveUntilRestoringAsync(process);
        Assert.Equal('t', StateOf(process.Pid));
        KillReceiver(destination);
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_move_that_is_killed_before_the_process_runs_there_leaves_it_running_here()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        (PageferryProcess destination, PageferryProcess move) = await MoveUntilRestoringAsync(process);
        Assert.Equal('t', StateOf(process.Pid));
        move.Kill();
        await process.MakePassesAsync(2);
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await destination.WaitUntilAsync(() => destination.Output.Contains("failed", StringComparison.Ordinal), "that it says so");
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
        await move.WaitUntilAsync(() => ImagesOf(process.Pid).Length == 0, "that nothing of it is left");
    }

    [Theory]
    [InlineData("INT")]
    [InlineData("HUP")]
    public async Task A_move_that_is_cancelled_before_the_process_runs_there_leaves_it_running_here(string signal)
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        (PageferryProcess destination, PageferryProcess move) = await MoveUntilRestoringAsync(process);
        move.Signal(signal);
        await move.WaitForExitAsync();
        Assert.Equal(130, move.ExitCode);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
        await destination.WaitUntilAsync(() => destination.Output.Contains("it was cancelled", StringComparison.Ordinal), "that it hears so");
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await MoveAgainAsync(process, destination);
        Assert.DoesNotContain("page server", destination.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_move_that_is_cancelled_while_CRIU_hangs_leaves_it_running_here()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        PageferryProcess destination = await ReceiveAsync();
        PageferryProcess move = Start(PageferryProcess.Start("criu", "move", $"{process.Pid}", "--to", EndpointOf(destination), "--criu", await HangingCriuAsync(process)));
        await move.WaitUntilAsync(() => File.Exists(Path("hanging")) || move.HasExited, "that CRIU hangs");
        Assert.Equal('t', StateOf(process.Pid));
        move.Signal("TERM");
        await move.WaitForExitAsync(TimeSpan.FromSeconds(30));
        Assert.Equal(130, move.ExitCode);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        await MoveAgainAsync(process, destination);
    }

    [Fact]
    public async Task A_move_that_is_cancelled_before_it_is_answered_says_so()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 1, "random");
        using var silent = new TcpListener(IPAddress.Loopback, 0);
        silent.Start();
        PageferryProcess move = StartMove(process.Pid, $"{silent.LocalEndpoint}");
        using Socket taken = await silent.AcceptSocketAsync(TestContext.Current.CancellationToken);
        move.Signal("INT");
        await move.WaitForExitAsync(TimeSpan.FromSeconds(30));
        Assert.Equal(130, move.ExitCode);
        Assert.Contains("The move was cancelled", move.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_receiver_that_is_told_to_end_cleans_up_first_and_leaves_the_process_running_here()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        (PageferryProcess destination, PageferryProcess move) = await MoveUntilRestoringAsync(process);
        Assert.NotEmpty(Directory.GetDirectories(Path("."), "pageferry-receive-*"));
        PageferryProcess.Signal(ChildOf(destination), "TERM");
        await destination.WaitForExitAsync(TimeSpan.FromSeconds(60));
        Assert.Equal(130, destination.ExitCode);
        Assert.Contains("the destination was ended", destination.Output, StringComparison.Ordinal);
        Assert.Empty(Directory.GetDirectories(Path("."), "pageferry-receive-*"));
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
    }

    [Fact]
    public async Task A_process_with_a_child_that_has_ended_moves()
    {
        // sleep does not wait for the other one.
        using var process = Process.Start("setsid", ["sh", "-c", "sleep 0 & exec sleep 1000 </dev/null >/dev/null 2>&1"]);
        string child = string.Empty;
        Assert.True(SpinWait.SpinUntil(() => (child = File.ReadAllText($"/proc/{process.Id}/task/{process.Id}/children").Trim()).Length > 0 && StateOf(int.Parse(child, CultureInfo.InvariantCulture)) == 'Z', TimeSpan.FromSeconds(30)));
        PageferryProcess destination = await ReceiveAsync();
        PageferryProcess move = await MoveAsync(process.Id, destination);
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        using Process found = Process.Start("nsenter", ["-t", $"{ChildOf(destination)}", "-p", "-m", "grep", "-q", "^State:.Z", $"/proc/{child}/status"]);
        await found.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.Equal(0, found.ExitCode);
    }

    [Fact]
    public async Task Capabilities_that_are_missing_are_named()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 1, "random");
        PageferryProcess move = Start(PageferryProcess.StartProgram(
            "setpriv", "--bounding-set=-sys_ptrace,-sys_admin,-checkpoint_restore,-net_admin", PageferryProcess.Program,
            "criu", "move", $"{process.Pid}", "--to", "127.0.0.1:1", "--tcp-established", "--criu", _criu.Program));
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.All(["CAP_SYS_PTRACE", "CAP_CHECKPOINT_RESTORE", "CAP_NET_ADMIN"], name => Assert.Contains($"lacks {name}", move.Errors, StringComparison.Ordinal));
        await process.MakePassesAsync(1);
    }

    [Fact]
    public async Task A_link_that_falls_silent_before_the_process_runs_there_leaves_it_running_here()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        PageferryProcess destination = await ReceiveAsync(await SlowCriuAsync());
        Relay link = RelayTo(destination);
        PageferryProcess move = StartMove(process.Pid, $"{link.EndPoint}");
        await move.WaitUntilAsync(() => File.Exists(Path("restoring")) || move.HasExited, "that it is restored");
        link.IsFlowing = false;
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("silent for 10 s", move.Errors, StringComparison.Ordinal);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await destination.WaitUntilAsync(() => destination.Output.Contains("silent for 10 s", StringComparison.Ordinal), "that it hears nothing either");
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_dump_that_fails_leaves_the_process_running_here_and_the_receiver_listening()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        string failing = await ScriptAsync("criu-failing", $"case $1 in dump) exit 1 ;; esac; exec {_criu.Program} \"$@\"");
        PageferryProcess destination = await ReceiveAsync();
        PageferryProcess move = Start(PageferryProcess.Start("criu", "move", $"{process.Pid}", "--to", EndpointOf(destination), "--criu", failing));
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("could not dump process", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(1);
        await MoveAgainAsync(process, destination);
    }

    [Fact]
    public async Task A_restore_that_fails_leaves_the_process_running_here_and_the_receiver_listening()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        string failing = await ScriptAsync("criu-failing", $"case $1 in restore) [ -e {Path("good")} ] || exit 1 ;; esac; exec {_criu.Program} \"$@\"");
        PageferryProcess destination = await ReceiveAsync(failing);
        long began = Stopwatch.GetTimestamp();
        PageferryProcess move = await MoveAsync(process.Pid, destination);
        Assert.Equal(1, move.ExitCode);

        // It is frozen no longer than that: whoever is not needed any more is not waited for.
        Assert.InRange(Stopwatch.GetElapsedTime(began).TotalSeconds, 0, 9);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(1);
        await File.WriteAllTextAsync(Path("good"), string.Empty);
        await MoveAgainAsync(process, destination);
    }

    [Fact]
    public async Task A_process_that_is_killed_half_way_ends_the_move_on_both_sides()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 256, "sequential");
        PageferryProcess destination = await ReceiveAsync();
        PageferryProcess move = StartMove(process.Pid, destination);
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Runs at", StringComparison.Ordinal), "that it runs");
        using (Process kill = Process.Start("nsenter", ["-t", $"{ChildOf(destination)}", "-p", "-m", "kill", "-9", $"{process.Pid}"]))
        {
            await kill.WaitForExitAsync();
        }

        await move.WaitForExitAsync(TimeSpan.FromSeconds(60));
        await destination.WaitForExitAsync(TimeSpan.FromSeconds(60));
        Assert.True(move.ExitCode == 0, move.Errors);
        Assert.True(destination.ExitCode == 0, destination.Errors);
    }

    [Fact]
    public async Task A_dump_that_is_killed_before_the_process_runs_there_leaves_it_running_here()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        (PageferryProcess destination, PageferryProcess move) = await MoveUntilRestoringAsync(process);
        Kill(DumpOf(move));
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        Assert.Contains("does not keep process", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await destination.WaitUntilAsync(() => destination.Output.Contains("failed", StringComparison.Ordinal), "that it says so");
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_process_that_is_killed_while_it_is_frozen_is_not_started_there()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        (PageferryProcess destination, PageferryProcess move) = await MoveUntilRestoringAsync(process);
        ulong passes = process.Passes;
        Kill(process.Pid);
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("does not keep process", move.Errors, StringComparison.Ordinal);
        await destination.WaitUntilAsync(() => destination.Output.Contains("failed", StringComparison.Ordinal), "that it says so");
        Assert.Equal(passes, process.Passes);
    }

    [Fact]
    public async Task A_start_that_is_lost_with_its_link_is_said_again()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        PageferryProcess destination = await ReceiveAsync();
        Relay link = RelayTo(destination);
        link.Lose(s_start);
        PageferryProcess move = StartMove(process.Pid, $"{link.EndPoint}");
        await move.WaitForExitAsync();
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        Assert.Equal(1, link.Cuts);
        Assert.Contains("it is looked for", move.Errors, StringComparison.Ordinal);
        Assert.Contains("The source is waited for", destination.Output, StringComparison.Ordinal);
        await process.LeaveAsync();
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    /// <summary>The name is one in a mount namespace, which has a hosts file of its own.</summary>
    [Fact]
    public async Task A_destination_is_found_again_when_its_name_is_not()
    {
        await File.WriteAllTextAsync(Path("hosts"), "127.0.0.1 b.example\n");

        // What is open from outside of a mount namespace can't be dumped.
        using var process = Process.Start("setsid", [
            "unshare", "-m", "bash", "-c", $"mount --bind {Path("hosts")} /etc/hosts; for fd in /proc/$$/fd/*; do eval \"exec ${{fd##*/}}<&-\"; done; exec sleep 1000 </dev/null >/dev/null 2>&1"]);
        Assert.True(SpinWait.SpinUntil(() => File.ReadAllText($"/proc/{process.Id}/comm") == "sleep\n", TimeSpan.FromSeconds(30)));
        PageferryProcess destination = await ReceiveAsync(await SlowCriuAsync());
        Relay link = RelayTo(destination);
        link.Lose(s_start);
        PageferryProcess move = Start(PageferryProcess.StartProgram(
            "nsenter", "-t", $"{process.Id}", "-m", PageferryProcess.Program, "criu", "move", $"{process.Id}", "--to", $"b.example:{((IPEndPoint)link.EndPoint).Port}", "--criu", _criu.Program));
        await move.WaitUntilAsync(() => File.Exists(Path("restoring")) || move.HasExited, "that it is restored");
        await File.WriteAllTextAsync(Path("hosts"), string.Empty);
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await move.WaitForExitAsync();
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        Assert.Equal(1, link.Cuts);
    }

    [Fact]
    public Task A_dump_and_a_restore_that_do_not_end_and_a_source_that_does_not_come_back_are_given_up_after_a_minute() =>
        Task.WhenAll(GiveUpDumpAsync(), GiveUpRestoreAsync(), GiveUpSourceAsync());

    [Fact]
    public async Task A_restore_that_fails_although_it_was_told_to_start_leaves_the_process_running_here_and_the_receiver_listening()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        PageferryProcess destination = await ReceiveAsync(await CriuWithScriptAsync("[ $CRTOOLS_SCRIPT_ACTION != post-restore ]"));
        PageferryProcess move = await MoveAsync(process.Pid, destination);
        Assert.True(move.ExitCode == 1, move.Output + move.Errors);
        Assert.Contains("which gave it up, and goes on here", move.Errors, StringComparison.Ordinal);
        Assert.Contains("CRIU gave up after the processes were restored", destination.Output, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        await File.WriteAllTextAsync(Path("good"), string.Empty);
        await MoveAgainAsync(process, destination);
    }

    [Fact]
    public async Task A_CRIU_that_is_killed_before_the_process_runs_leaves_it_running_here()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        PageferryProcess destination = await ReceiveAsync(await CriuWithScriptAsync("[ $CRTOOLS_SCRIPT_ACTION != post-restore ] || kill -9 $PPID"));
        PageferryProcess move = await MoveAsync(process.Pid, destination);
        Assert.True(move.ExitCode == 1, move.Output + move.Errors);
        Assert.Contains("which gave it up, and goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        await MoveAgainAsync(process, await ReceiveAsync());
    }

    [Theory]
    [InlineData("pre-resume")]
    [InlineData("post-resume")]
    public async Task A_CRIU_that_is_killed_when_the_process_runs_leaves_it_running_there_alone(string action)
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");

        // Nobody says in post-resume that it runs.
        PageferryProcess destination = await ReceiveAsync(await CriuWithScriptAsync($"[ $CRTOOLS_SCRIPT_ACTION != {action} ] || kill -9 $PPID", $"[ $CRTOOLS_SCRIPT_ACTION != post-resume ] && "));
        PageferryProcess move = await MoveAsync(process.Pid, destination);
        Assert.True(move.ExitCode == 0, move.Output + move.Errors + destination.Output);
        Assert.Contains("when it had let process", destination.Output, StringComparison.Ordinal);
        await process.LeaveAsync();
        await process.MakePassesAsync(2);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_process_of_which_nobody_knows_whether_it_ran_stays_frozen_here()
    {
        // Ends after what keeps it frozen, or it would wait for that.
        MovingProcess process = Start(await MovingProcess.FillAndCheckAsync(Path("."), 16, "random"));
        PageferryProcess destination = await ReceiveAsync(await CriuWithScriptAsync("[ $CRTOOLS_SCRIPT_ACTION != pre-resume ] || kill -9 $PPID", "[ $CRTOOLS_SCRIPT_ACTION = post-restore ] && "));
        PageferryProcess move = StartMove(process.Pid, destination);
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("knows nothing of that move", StringComparison.Ordinal), "that the destination has done with it");
        Assert.False(move.HasExited, move.Errors);
        Assert.Contains("nobody knows whether it did. It is ended here", move.Errors, StringComparison.Ordinal);
        Assert.Equal('t', StateOf(process.Pid));
        ulong passes = process.Passes;
        await Task.Delay(200, TestContext.Current.CancellationToken);
        Assert.Equal(passes, process.Passes);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_link_that_is_lost_while_memory_comes_is_looked_for_and_nothing_is_lost(bool isDumpKilled)
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 64, "random");
        PageferryProcess destination = await ReceiveAsync(await SlowCriuAsync());
        Relay link = RelayTo(destination);
        PageferryProcess move = StartMove(process.Pid, $"{link.EndPoint}");
        await move.WaitUntilAsync(() => File.Exists(Path("restoring")) || move.HasExited, "that it is restored");
        link.IsRefusing = true;
        link.CutAfter(toDestination: 16 << 20);
        ulong passes = process.Passes;
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await destination.WaitUntilAsync(() => destination.Output.Contains("The source is waited for", StringComparison.Ordinal), "that the link is lost");
        await move.WaitUntilAsync(() => move.Errors.Contains("it is looked for", StringComparison.Ordinal), "that it looks for the destination");
        if (isDumpKilled)
        {
            Assert.Equal('t', StateOf(process.Pid));
            Kill(DumpOf(move));
            await move.WaitUntilAsync(() => StateOf(process.Pid) == 'T', "that it stands still without CRIU");
        }

        // It may have ended the pass that it was frozen in; for another one it lacks pages.
        Assert.InRange(process.Passes, passes, passes + 1);

        // From now on it is lost again and again.
        link.IsRefusing = false;
        link.CutAfter(toDestination: 8 << 20, againAfter: 8 << 20);
        await move.WaitForExitAsync();
        Assert.True(move.ExitCode == 0, move.Errors + destination.Output + destination.Errors);
        Assert.True(link.Cuts > 3);
        await process.LeaveAsync();
        await process.ReachAsync(passes + 3);
        Assert.Equal(0UL, process.Bad);
    }

    [Fact]
    public async Task A_receiver_that_is_killed_while_memory_comes_leaves_the_process_frozen_here()
    {
        // Ends after what keeps it frozen, or it would wait for that.
        MovingProcess process = Start(await MovingProcess.FillAndCheckAsync(Path("."), 256, "random"));
        PageferryProcess destination = await ReceiveAsync(options: s_slowly);
        PageferryProcess move = StartMove(process.Pid, destination);
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Runs at", StringComparison.Ordinal), "that it runs");
        KillReceiver(destination);
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Start 'pageferry criu receive' there", StringComparison.Ordinal), "that nobody listens there");
        PageferryProcess another = await ListeningAsync(Start(PageferryProcess.Start("criu", "receive", "--listen", EndpointOf(destination), "--criu", _criu.Program)));
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("knows nothing of that move", StringComparison.Ordinal), "that another one does not know it");
        move.Signal("INT");
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("the move goes on", StringComparison.Ordinal), "that it is not given up");
        Assert.False(move.HasExited, move.Errors);
        Assert.False(another.HasExited);
        Assert.Equal('t', StateOf(process.Pid));
    }

    [Fact]
    public async Task A_move_that_is_killed_while_memory_comes_leaves_the_process_frozen_here_and_waiting_there()
    {
        // Ends after what keeps it frozen, or it would wait for that.
        MovingProcess process = Start(await MovingProcess.FillAndCheckAsync(Path("."), 256, "random"));
        PageferryProcess destination = await ReceiveAsync(options: s_slowly);
        PageferryProcess move = StartMove(process.Pid, destination);
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Runs at", StringComparison.Ordinal), "that it runs");
        int dump = DumpOf(move);
        try
        {
            move.Kill();
            await destination.WaitUntilAsync(() => destination.Output.Contains("The source is waited for", StringComparison.Ordinal), "that the source is gone");
            Assert.Equal('t', StateOf(process.Pid));
            Assert.False(destination.HasExited);
            Assert.Equal(0UL, process.Bad);
        }
        finally
        {
            Kill(dump);
        }
    }

    [Fact]
    public async Task A_frozen_process_that_is_killed_while_memory_comes_is_missed_there()
    {
        // Ends after what keeps it frozen, or it would wait for that.
        MovingProcess process = Start(await MovingProcess.FillAndCheckAsync(Path("."), 256, "random"));
        PageferryProcess destination = await ReceiveAsync(options: s_slowly);
        PageferryProcess move = StartMove(process.Pid, destination);
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("Runs at", StringComparison.Ordinal), "that it runs");
        Kill(process.Pid);
        await move.WaitUntilAsync(() => move.HasExited || move.Errors.Contains("killed while it was moved", StringComparison.Ordinal), "that its memory is gone");
        Assert.False(move.HasExited, move.Errors);
        Assert.False(destination.HasExited);
        Assert.Equal(0UL, process.Bad);
    }

    [Theory]
    [InlineData("not a process id", "0", "--to", "127.0.0.1:4455")]
    [InlineData("choose one", "1", "--to", "127.0.0.1:4455", "--tcp-established", "--tcp-close")]
    [InlineData("under TLS only", "1", "--to", "10.0.0.1:4455")]
    public async Task What_can_not_be_is_refused(string reason, params string[] options)
    {
        using PageferryProcess refused = await PageferryProcess.RunAsync(["criu", "move", .. options]);
        Assert.Equal(2, refused.ExitCode);
        Assert.Contains(reason, refused.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_missing_CRIU_is_said_before_anything_is_done()
    {
        using PageferryProcess receive = await PageferryProcess.RunAsync("criu", "receive", "--listen", "127.0.0.1:0", "--criu", Path("none"));
        Assert.Equal(1, receive.ExitCode);
        Assert.Contains("--criu", receive.Errors, StringComparison.Ordinal);
        using PageferryProcess move = await PageferryProcess.RunAsync("criu", "move", "1", "--to", "127.0.0.1:1", "--criu", Path("none"));
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("--criu", move.Errors, StringComparison.Ordinal);
    }

    private static char StateOf(int pid) => File.ReadAllText($"/proc/{pid}/stat") is var stat ? stat[stat.LastIndexOf(')') + 2] : ' ';

    /// <summary>The receiver, which is the child of the program that made its namespaces.</summary>
    private static int ChildOf(PageferryProcess namespaces) =>
        int.Parse(File.ReadAllText($"/proc/{namespaces.Pid}/task/{namespaces.Pid}/children").Trim(), CultureInfo.InvariantCulture);

    /// <summary>The CRIU that keeps the process frozen.</summary>
    private static int DumpOf(PageferryProcess move) => Directory.GetDirectories($"/proc/{move.Pid}/task")
        .SelectMany(static task => File.ReadAllText($"{task}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries))
        .Select(static child => int.Parse(child, CultureInfo.InvariantCulture))
        .Single(static child => File.ReadAllText($"/proc/{child}/cmdline").Split('\0').Contains("dump"));

    private static string[] ImagesOf(int pid) => Directory.GetDirectories(System.IO.Path.GetTempPath(), $"pageferry-move-{pid}-*");

    private static void Kill(int pid)
    {
        using Process kill = Process.Start("kill", ["-9", $"{pid}"]);
        kill.WaitForExit();
        Assert.Equal(0, kill.ExitCode);
    }

    private static string EndpointOf(PageferryProcess destination) => ListensOn().Match(destination.Output).Value;

    [GeneratedRegex(@"(?<=Waits for a process on )[0-9.]+:[0-9]+", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex ListensOn();

    /// <summary>The receiver alone: what it has restored, and CRIU, are killed with the namespace, since it is the first process there.</summary>
    private static void KillReceiver(PageferryProcess destination) => Kill(ChildOf(destination));

    /// <summary>A receiver that is killed leaves its images: here.</summary>
    private string Temporary => $"TMPDIR={Path(".")}";

    private string Path(string name) => _directory.Path(name);

    private T Start<T>(T started)
        where T : IDisposable
    {
        _started.Add(started);
        return started;
    }

    /// <summary>Moves a process, until it is about to be restored: that goes on when there is a file called "go".</summary>
    private async Task<(PageferryProcess Destination, PageferryProcess Move)> MoveUntilRestoringAsync(MovingProcess process)
    {
        PageferryProcess destination = await ReceiveAsync(await SlowCriuAsync());
        PageferryProcess move = StartMove(process.Pid, destination);
        await move.WaitUntilAsync(() => File.Exists(Path("restoring")) || move.HasExited, "that it is restored");
        return (destination, move);
    }

    private async Task GiveUpDumpAsync()
    {
        const string Folder = "hangs";
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Directory.CreateDirectory(Path(Folder)).FullName, 16, "random");
        PageferryProcess destination = await ReceiveAsync();
        PageferryProcess move = Start(PageferryProcess.Start("criu", "move", $"{process.Pid}", "--to", EndpointOf(destination), "--criu", await HangingCriuAsync(process, Folder)));
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains($"has not dumped process {process.Pid}", move.Errors, StringComparison.Ordinal);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
    }

    private async Task GiveUpRestoreAsync()
    {
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Path("."), 16, "random");
        PageferryProcess destination = await ReceiveAsync(await SlowCriuAsync());
        PageferryProcess move = await MoveAsync(process.Pid, destination);
        Assert.Equal(1, move.ExitCode);
        Assert.Contains($"has not restored process {process.Pid}", move.Errors, StringComparison.Ordinal);
        Assert.Contains("goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(1);
        await File.WriteAllTextAsync(Path("go"), string.Empty);
        await MoveAgainAsync(process, destination);
    }

    /// <summary>The source has said that the process may start, which is lost, and can't come back to say it again.</summary>
    private async Task GiveUpSourceAsync()
    {
        const string Folder = "away";
        using MovingProcess process = await MovingProcess.FillAndCheckAsync(Directory.CreateDirectory(Path(Folder)).FullName, 16, "random");
        PageferryProcess destination = await ReceiveAsync(await SlowCriuAsync(Folder));
        Relay link = RelayTo(destination);
        link.Lose(s_start);
        PageferryProcess move = StartMove(process.Pid, $"{link.EndPoint}");
        await move.WaitUntilAsync(() => File.Exists(Path($"{Folder}/restoring")) || move.HasExited, "that it is restored");
        link.IsRefusing = true;
        await File.WriteAllTextAsync(Path($"{Folder}/go"), string.Empty);
        await destination.WaitUntilAsync(() => destination.Output.Contains("The source is waited for", StringComparison.Ordinal), "that the link is lost");
        ulong passes = process.Passes;
        long began = Stopwatch.GetTimestamp();
        await destination.WaitUntilAsync(() => destination.Output.Contains("failed", StringComparison.Ordinal), "that the source is given up");
        Assert.InRange(Stopwatch.GetElapsedTime(began).TotalSeconds, 55, 75);

        // Neither there nor here.
        Assert.Equal(passes, process.Passes);
        Assert.False(move.HasExited, move.Errors);
        link.IsRefusing = false;
        await move.WaitForExitAsync();
        Assert.Equal(1, move.ExitCode);
        Assert.Contains("which gave it up, and goes on here", move.Errors, StringComparison.Ordinal);
        await process.MakePassesAsync(2);
        await MoveAgainAsync(process, destination);
    }

    /// <summary>Moves a process to a receiver with which it failed before.</summary>
    private async Task MoveAgainAsync(MovingProcess process, PageferryProcess destination)
    {
        PageferryProcess again = await MoveAsync(process.Pid, destination);
        Assert.True(again.ExitCode == 0, again.Errors + destination.Output + destination.Errors);
        await process.LeaveAsync();
        await process.MakePassesAsync(1);
        Assert.Equal(0UL, process.Bad);
    }

    private NetworkPair Network() => Start(NetworkPair.MakeOrSkip());

    /// <summary>A CRIU that says when it is to restore, and waits until it may.</summary>
    private Task<string> SlowCriuAsync(string folder = ".") => ScriptAsync(
        $"{folder}/criu-slow",
        $"case $1 in restore) touch {Path($"{folder}/restoring")}; while [ ! -e {Path($"{folder}/go")} ]; do sleep 0.05; done ;; esac; exec {_criu.Program} \"$@\"");

    /// <summary>A CRIU that stands still as soon as it has frozen the process, and says so. Looked for by the shell itself: a moment later code of CRIU's runs in the process.</summary>
    private Task<string> HangingCriuAsync(MovingProcess process, string folder = ".") => ScriptAsync($"{folder}/criu-hanging", $$"""
        case $1 in dump)
          {{_criu.Program}} "$@" & criu=$!
          until [ "${state%% *}" = t ]; do
            { read -r line; read -r line; read -r name state; } </proc/{{process.Pid}}/status
          done
          kill -STOP $criu
          touch {{Path($"{folder}/hanging")}}
          wait $criu ;;
        esac
        exec {{_criu.Program}} "$@"
        """);

    /// <summary>A CRIU that, in place of the script that it is given, runs one that does something else behind it; until there is a file called "good".</summary>
    /// <param name="behind">What it does.</param>
    /// <param name="when">Whether the one that it is given is run at all.</param>
    private Task<string> CriuWithScriptAsync(string behind, string when = "") => ScriptAsync("criu-failing", $$"""
        case $1 in restore) if [ ! -e {{Path("good")}} ]; then
          for word; do
            [ "$before" = --action-script ] && { printf '#!/bin/sh\n{ %s %s "$@"; } || [ $CRTOOLS_SCRIPT_ACTION != post-restore ] || exit\n%s\n' '{{when}}' "$word" '{{behind}}' >{{Path("hook")}}; chmod +x {{Path("hook")}}; word={{Path("hook")}}; }
            before=$word; shift; set -- "$@" "$word"
          done
        fi ;; esac
        exec {{_criu.Program}} "$@"
        """);

    private async Task<string> ScriptAsync(string name, string script)
    {
        await File.WriteAllTextAsync(Path(name), $"#!/bin/sh\n{script}\n");
        File.SetUnixFileMode(Path(name), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return Path(name);
    }

    private static async Task<PageferryProcess> ListeningAsync(PageferryProcess destination)
    {
        await destination.WaitUntilAsync(() => destination.Output.Contains('\n', StringComparison.Ordinal) || destination.HasExited, "that it listens");
        Assert.False(destination.HasExited, destination.Errors);
        return destination;
    }

    /// <summary>A receiver in a pid namespace of its own, as a user starts it.</summary>
    private Task<PageferryProcess> ReceiveAsync(string? criu = null, params string[] options) => ListeningAsync(Start(PageferryProcess.StartProgram(
        "env", [Temporary, "unshare", "-p", "-f", "-m", "--mount-proc", "--kill-child", PageferryProcess.Program, "criu", "receive", "--listen", "127.0.0.1:0", "--criu", criu ?? _criu.Program, .. options])));

    /// <summary>The same, in a network namespace that is there.</summary>
    private Task<PageferryProcess> ReceiveInAsync(string network, string listen, string[] options, string? criu = null) => ListeningAsync(Start(PageferryProcess.StartProgram(
        "env",
        [Temporary, "nsenter", $"--net=/run/netns/{network}", "unshare", "-p", "-f", "-m", "--mount-proc", "--kill-child", PageferryProcess.Program, "criu", "receive", "--listen", listen, "--criu", criu ?? _criu.Program, .. options])));

    private Relay RelayTo(PageferryProcess destination) => Start(new Relay(IPEndPoint.Parse(EndpointOf(destination))));

    private PageferryProcess StartMove(int pid, PageferryProcess destination, params string[] options) => StartMove(pid, EndpointOf(destination), options);

    private PageferryProcess StartMove(int pid, string to, params string[] options)
    {
        _moved.Add(pid);
        return Start(PageferryProcess.Start(["criu", "move", $"{pid}", "--to", to, "--criu", _criu.Program, .. options]));
    }

    private PageferryProcess StartMoveFrom(string network, int pid, PageferryProcess destination, params string[] options) => Start(PageferryProcess.StartProgram(
        "nsenter", [$"--net=/run/netns/{network}", PageferryProcess.Program, "criu", "move", $"{pid}", "--to", EndpointOf(destination), "--criu", _criu.Program, .. options]));

    private async Task<PageferryProcess> MoveAsync(int pid, PageferryProcess destination, params string[] options)
    {
        PageferryProcess move = StartMove(pid, destination, options);
        await move.WaitForExitAsync();
        return move;
    }

    private async Task<PageferryProcess> MoveFromAsync(string network, int pid, PageferryProcess destination, params string[] options)
    {
        PageferryProcess move = StartMoveFrom(network, pid, destination, options);
        await move.WaitForExitAsync();
        return move;
    }
}
