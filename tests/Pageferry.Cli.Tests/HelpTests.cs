namespace Pageferry.Cli.Tests;

public sealed class HelpTests
{
    public static TheoryData<string> Commands =>
    [
        "", "demo", "doctor", "conformance", "bench", "bench demand-paging", "tls", "tls init", "vm", "vm run", "vm receive", "vm migrate", "vm serve", "vm cancel", "vm pause", "vm resume",
        "vm status", "vm arm", "vm disarm", "vm upgrade-engine", "vm stop", "hold", "criu", "criu move", "criu receive", "criu page-server", "criu lazy-pages",
    ];

    [Theory]
    [MemberData(nameof(Commands))]
    public async Task Every_command_has_help_of_80_columns_with_an_example(string command)
    {
        string[] words = command.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        using PageferryProcess help = await PageferryProcess.RunAsync([.. words, "--help"]);
        Assert.Equal(0, help.ExitCode);
        Assert.Contains($"Examples:\n  pageferry {command}".TrimEnd(), help.Output, StringComparison.Ordinal);
        Assert.All(help.Output.Split('\n'), line => Assert.True(line.TrimEnd().Length <= 80, line));
        Assert.Empty(help.Errors);
    }

    [Theory]
    [InlineData("")]
    [InlineData("vm")]
    [InlineData("bench")]
    [InlineData("tls")]
    [InlineData("criu")]
    public async Task A_command_without_its_subcommand_shows_help_and_is_a_usage_error(string command)
    {
        using PageferryProcess help = await PageferryProcess.RunAsync(command.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        Assert.Equal(2, help.ExitCode);
        Assert.Contains("Commands:", help.Errors, StringComparison.Ordinal);
        Assert.Empty(help.Output);
    }

    [Fact]
    public async Task Version_is_told()
    {
        using PageferryProcess version = await PageferryProcess.RunAsync("--version");
        Assert.Equal(0, version.ExitCode);
        Assert.Matches(@"^\d+\.\d+\.\d+", version.Output);
    }

    [Theory]
    [InlineData("destroy", "'destroy' is not a command of 'pageferry'")]
    [InlineData("bench sleep", "'sleep' is not a command of 'pageferry bench'")]
    [InlineData("vm destroy", "'destroy' is not a command of 'pageferry vm'")]
    [InlineData("demo --memory 0", "is zero")]
    [InlineData("demo --memory 5000b", "not a multiple of the page size")]
    [InlineData("demo --memory", "--memory")]
    [InlineData("demo --vcpus 0", "is not a number of virtual CPUs")]
    [InlineData("demo --vcpus many", "is not a number of virtual CPUs")]
    [InlineData("demo --backing disk", "Choose one of: memfd, memfd-2m, anonymous, guest-memfd")]
    [InlineData("demo --host cloud", "Choose one of: auto, kvm, threads")]
    [InlineData("demo --wrong", "--wrong")]
    [InlineData("vm run stamp", "'--control' is required")]
    [InlineData("vm run --control /tmp/x.sock", "Say what to run: a GUEST, or --from and a snapshot")]
    [InlineData("vm run stamp --control /tmp/x.sock --privilege god", "Choose one of: user, kernel")]
    [InlineData("vm run stamp --control /tmp/x.sock --delivery pigeon", "Choose one of: auto, queue, exit")]
    [InlineData("vm arm --control /tmp/x.sock --semantics none", "Choose one of: any-access, first-access")]
    [InlineData("vm arm --control /tmp/x.sock --content lose", "Choose one of: keep, drop")]
    [InlineData("vm arm --control /tmp/x.sock --semantics first-access --content keep", "leave out --content")]
    [InlineData("vm arm --control /tmp/x.sock --range 1M", "is not a range of guest physical addresses")]
    [InlineData("vm arm --control /tmp/x.sock --range 1M+1", "not one of whole pages of 4096 bytes")]
    [InlineData("vm arm --control /tmp/x.sock --range 1M+1M --range 2M+0", "is empty")]
    [InlineData("vm disarm --control /tmp/x.sock --range 0xfffffffffffff000+0x1001000", "beyond what 64-bit addresses reach")]
    [InlineData("vm disarm --control /tmp/x.sock --range 99999999999T+1M", "is not a range of guest physical addresses")]
    [InlineData("vm receive --control /tmp/x.sock", "'--listen' is required")]
    [InlineData("vm receive --control /tmp/x.sock --listen 127.0.0.1:0 --engine apart", "Choose one of: inside, separate")]
    [InlineData("vm receive --control /tmp/x.sock --listen 127.0.0.1:0 --engine separate --delivery exit", "Leave --delivery out")]
    [InlineData("vm receive --control /tmp/x.sock --listen 127.0.0.1:0 --engine-socket /tmp/e.sock", "Give --engine separate too")]
    [InlineData("engine", "'--guest' is required")]
    [InlineData("vm receive --control /tmp/x.sock --listen 0.0.0.0:4444", "beyond loopback")]
    [InlineData("vm migrate --control /tmp/x.sock --to 10.0.0.1:4444", "beyond loopback")]
    [InlineData("vm migrate --control /tmp/x.sock --to nowhere", "is not HOST:PORT")]
    [InlineData("vm migrate --control /tmp/x.sock --to nowhere.invalid:4444", "Could not find a host named 'nowhere.invalid'")]
    [InlineData("vm migrate --control /tmp/x.sock --to 10.0.0.1:4444 --tls-cert a.pem", "--tls-key and --tls-ca are missing")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --tls-cert a.pem --tls-ca c.pem", "--tls-key is missing")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --tls-hostname b", "--tls-hostname is the name in the peer's certificate")]
    [InlineData("vm receive --control /tmp/x.sock --listen 10.0.0.1:4444 --tls-cert a --tls-key b --tls-ca c --insecure-network", "without TLS. Leave it out")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --tls-cert", "Required argument missing for option: '--tls-cert'")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:0", "has port 0, where nobody listens")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:99999", "a port from 1 to 65535")]
    [InlineData("vm receive --control /tmp/x.sock --listen 127.0.0.1:99999", "a port from 0 to 65535")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --link-timeout 99ms", "which is from 100ms to 1h")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --link-timeout 2387h", "which is from 100ms to 1h")]
    [InlineData("vm receive --control /tmp/x.sock --listen 127.0.0.1:0 --link-timeout 61m", "which is from 100ms to 1h")]
    [InlineData("vm receive --control /tmp/x.sock --listen 127.0.0.1:0 --stall-warning 1194h", "which is from 10ms to 24h")]
    [InlineData("vm receive --control /tmp/x.sock --listen 127.0.0.1:0 --stall-warning 1ms", "which is from 10ms to 24h")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --auto-converge", "--auto-converge has no effect here")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --mode postcopy --timeout 1m", "--timeout has no effect here")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --mode postcopy --on-timeout cancel", "--on-timeout has no effect here")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --mode postcopy --max-bandwidth 1G", "--max-bandwidth has no effect here")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --mode precopy --max-postcopy-bandwidth 1G", "--max-postcopy-bandwidth has no effect here")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --on-timeout postcopy", "without --timeout")]
    [InlineData("vm migrate --control /tmp/x.sock --to 127.0.0.1:4444 --resume --validate --tls-cert a.pem", "leave out --validate, --tls-cert")]
    [InlineData("vm receive --control /tmp/x.sock --resume --engine separate", "leave out --engine")]
    [InlineData("hold", "'--socket' is required")]
    [InlineData("vm serve --control /tmp/x.sock", "'--holder' is required")]
    [InlineData("criu lazy-pages --page-server", "--page-server needs the server's --port")]
    [InlineData("criu lazy-pages --page-server --port 0", "--page-server needs the server's --port")]
    [InlineData("criu lazy-pages --page-server --port abc", "'abc' is not a value of --port")]
    [InlineData("criu lazy-pages --page-server --port 99999", "'99999' is not a value of --port")]
    [InlineData("criu page-server --port 9999x", "'9999x' is not a value of --port")]
    [InlineData("criu page-server --status-fd -1", "'-1' is not a value of --status-fd")]
    [InlineData("criu lazy-pages --background all", "Choose one of: none, sequential, locality")]
    [InlineData("criu lazy-pages --background 7", "Choose one of: none, sequential, locality")]
    [InlineData("criu receive --listen 127.0.0.1:0 --background all", "Choose one of: none, sequential, locality")]
    [InlineData("criu lazy-pages --tls-cert a.pem --tls-key b.pem", "--tls-cert is CRIU's own way to encrypt")]
    [InlineData("criu page-server --tls-no-cn-verify", "--tls-no-cn-verify is CRIU's own way to encrypt")]
    [InlineData("tls init", "'--host' is required")]
    [InlineData("tls init --host a@b", "'a@b' is not a value of --host")]
    [InlineData("tls init --host a,", "'a,' is not a value of --host")]
    public async Task Wrong_usage_says_what_is_wrong_and_where_help_is(string line, string reason)
    {
        using PageferryProcess wrong = await PageferryProcess.RunAsync(line.Split(' '));
        Assert.Equal(2, wrong.ExitCode);
        Assert.StartsWith("pageferry: ", wrong.Errors, StringComparison.Ordinal);
        Assert.Contains(reason, wrong.Errors, StringComparison.Ordinal);
        Assert.Contains("--help'", wrong.Errors, StringComparison.Ordinal);
        Assert.Empty(wrong.Output);
    }

    [Fact]
    public async Task An_option_of_CRIUs_that_is_repeated_counts_as_it_was_said_last()
    {
        using PageferryProcess missing = await PageferryProcess.RunAsync("criu", "page-server", "--lazy-pages", "-D", "/nowhere/first", "-v1", "--images-dir", "/nowhere/last", "-v3", "--port", "1", "--port", "0");
        Assert.Equal(1, missing.ExitCode);
        Assert.Contains("/nowhere/last/inventory.img is not there", missing.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_work_directory_that_is_missing_or_too_long_for_a_socket_is_told_with_what_to_do()
    {
        using PageferryProcess missing = await PageferryProcess.RunAsync("criu", "lazy-pages", "-W", "/nowhere");
        Assert.Equal(1, missing.ExitCode);
        Assert.Contains("There is no work directory /nowhere. Make it first", missing.Errors, StringComparison.Ordinal);
        using var directory = new TemporaryDirectory();
        string work = Directory.CreateDirectory(directory.Path(new string('x', 120))).FullName;
        using PageferryProcess wrong = await PageferryProcess.RunAsync("criu", "lazy-pages", "-W", work);
        Assert.Equal(2, wrong.ExitCode);
        Assert.Contains("Give a shorter --work-dir", wrong.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_page_server_that_nobody_has_is_told_once_with_its_address()
    {
        using PageferryProcess move = await PageferryProcess.RunAsync("criu", "page-server", "--address", "192.0.2.1", "--insecure-network");
        Assert.Equal(1, move.ExitCode);
        Assert.Single(move.Errors.Split("192.0.2.1").Skip(1));
    }

    [Fact]
    public async Task A_control_path_too_long_for_a_socket_is_wrong_usage()
    {
        using PageferryProcess wrong = await PageferryProcess.RunAsync("vm", "status", "--control", "/tmp/" + new string('x', 120));
        Assert.Equal(2, wrong.ExitCode);
        Assert.Contains("has 125 bytes", wrong.Errors, StringComparison.Ordinal);
    }
}
