using System.Diagnostics;
using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>Migrations between two hosts, as far as the network goes: TLS, and networks that are slow and lossy.</summary>
public sealed class NetworkTests : IDisposable
{
    private static readonly string[] s_names = [NetworkPair.NameB, NetworkPair.AddressB, NetworkPair.AddressB6, NetworkPair.SlowAddressB];

    private readonly TemporaryDirectory _directory = new();
    private readonly NetworkPair _network = NetworkPair.MakeOrSkip();
    private readonly List<GuestProcess> _guests = [];

    private string SourceControl => _directory.Path("a.sock");

    private string DestinationControl => _directory.Path("b.sock");

    public void Dispose()
    {
        _guests.ForEach(guest => guest.Dispose());
        _network.Dispose();
        _directory.Dispose();
    }

    [Theory]
    [InlineData("auto")]
    [InlineData("precopy")]
    [InlineData("postcopy")]
    public async Task A_guest_moves_under_tls(string mode)
    {
        await MakeCertificatesAsync();
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", Tls("b"));
        Assert.Contains("under TLS", destination.Process.Output, StringComparison.Ordinal);
        await MoveAsync(source, destination, destination.Endpoint, [.. Tls("a"), "--mode", mode, .. mode == "precopy" ? (string[])["--auto-converge"] : [], "--validate"]);
    }

    [Theory]
    [InlineData($"{NetworkPair.NameB}:4444", "0.0.0.0:4444")]
    [InlineData($"{NetworkPair.NameB}:4444", $"{NetworkPair.NameB}:4444")]
    [InlineData($"[{NetworkPair.AddressB6}]:4444", "[::]:4444")]
    public async Task Hosts_are_found_by_name_and_by_both_kinds_of_address(string to, string listen)
    {
        await MakeCertificatesAsync();
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync(listen, Tls("b"));
        await MoveAsync(source, destination, to, Tls("a"));
    }

    [Theory]
    [InlineData("auto", 5, 0)]
    [InlineData("auto", 2, 10)]
    [InlineData("postcopy", 5, 0)]
    [InlineData("postcopy", 2, 10)]
    public async Task A_guest_moves_over_a_network_that_delays_and_loses(string mode, int delayMs, int lossPerMille)
    {
        await MakeCertificatesAsync();
        await _network.AddSlowLinkAsync(_directory, delayMs, lossPerMille);
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.SlowAddressB}:0", Tls("b"));
        await MoveAsync(source, destination, destination.Endpoint, [.. Tls("a"), "--mode", mode, "--validate"]);
        JsonElement migration = destination.Status().GetProperty("migration");
        if (mode == "postcopy")
        {
            // The first pages are asked for, and a request and its answer take the way twice.
            Assert.InRange(migration.GetProperty("fault_latency_us").GetProperty("max").GetDouble(), 2 * delayMs * 1000, double.MaxValue);
        }
    }

    [Fact]
    public async Task A_guest_moves_over_a_network_of_little_bandwidth()
    {
        await MakeCertificatesAsync();
        _network.LimitRate("400mbit");
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", Tls("b"));
        var clock = Stopwatch.StartNew();
        await MoveAsync(source, destination, destination.Endpoint, [.. Tls("a"), "--validate"]);

        // Of 64 MiB, which the guest has filled, none are zero.
        Assert.True(clock.Elapsed > TimeSpan.FromSeconds(1), $"64 MiB went at 400 Mbit/s within {clock.Elapsed}.");
    }

    [Fact]
    public async Task Where_all_packets_are_lost_the_guest_goes_on_within_the_deadline()
    {
        await MakeCertificatesAsync();
        await _network.AddSlowLinkAsync(_directory, delayMs: 0, lossPerMille: 1000);
        GuestProcess source = await RunAsync();
        var clock = Stopwatch.StartNew();
        using PageferryProcess migrate = await source.MigrateAsync($"{NetworkPair.SlowAddressB}:4444", Tls("a"));
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("did not answer in time: a connection was waited for, for 10 s. The guest goes on here", migrate.Errors, StringComparison.Ordinal);
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(30), $"It took {clock.Elapsed}.");
        await source.MakePassesAsync(2);
    }

    [Fact]
    public async Task A_source_without_a_certificate_is_refused_and_another_one_let_in()
    {
        await MakeCertificatesAsync();
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", Tls("b"));
        using (PageferryProcess stranger = await source.MigrateAsync(destination.Endpoint, "--insecure-network"))
        {
            Assert.Equal(1, stranger.ExitCode);
            Assert.Contains("This destination takes sources under TLS only", stranger.Errors, StringComparison.Ordinal);
        }

        await source.MakePassesAsync(2);
        await MoveAsync(source, destination, destination.Endpoint, Tls("a"));
    }

    [Fact]
    public async Task A_source_under_tls_is_refused_where_there_is_none()
    {
        await MakeCertificatesAsync();
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", "--insecure-network");
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint, Tls("a"));
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("was it started with --tls-cert, --tls-key and --tls-ca?", migrate.Errors, StringComparison.Ordinal);
        await source.MakePassesAsync(2);
        Assert.Equal("waiting", destination.State);
    }

    [Fact]
    public async Task A_certificate_of_another_authority_is_refused()
    {
        await MakeCertificatesAsync();
        using PageferryProcess others = await PageferryProcess.RunAsync("tls", "init", _directory.Path("others"), "--host", NetworkPair.AddressA);
        Assert.Equal(0, others.ExitCode);
        string other = _directory.Path($"others/{NetworkPair.AddressA}");
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", Tls("b"));
        using PageferryProcess migrate = await source.MigrateAsync(
            destination.Endpoint, "--tls-cert", $"{other}-cert.pem", "--tls-key", $"{other}-key.pem", "--tls-ca", _directory.Path("others/ca-cert.pem"));
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("is not signed by the authority trusted here", migrate.Errors, StringComparison.Ordinal);
        await source.MakePassesAsync(2);
        Assert.Equal("waiting", destination.State);
    }

    [Fact]
    public async Task A_certificate_for_another_host_is_refused_unless_that_host_is_expected()
    {
        await MakeCertificatesAsync();
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", Tls("c"));
        using (PageferryProcess wrong = await source.MigrateAsync(destination.Endpoint, Tls("a")))
        {
            Assert.Equal(1, wrong.ExitCode);
            Assert.Contains($"is for c, not for {NetworkPair.AddressB}", wrong.Errors, StringComparison.Ordinal);
        }

        await source.MakePassesAsync(2);
        await MoveAsync(source, destination, destination.Endpoint, [.. Tls("a"), "--tls-hostname", "c"]);
    }

    [Fact]
    public async Task A_destination_that_expects_another_source_refuses_this_one()
    {
        await MakeCertificatesAsync();
        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", [.. Tls("b"), "--tls-hostname", "c"]);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint, Tls("a"));
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("is for a, not for c", migrate.Errors, StringComparison.Ordinal);
        await source.MakePassesAsync(2);
        Assert.Equal("waiting", destination.State);
    }

    [Fact]
    public async Task Without_tls_nothing_leaves_loopback_unless_the_network_is_said_to_be_insecure()
    {
        string[] receive = ["vm", "receive", "--control", DestinationControl, "--listen", $"{NetworkPair.AddressB}:0"];
        string[] line = NetworkPair.Inside(_network.B, PageferryProcess.Program, receive);
        using (PageferryProcess refused = await PageferryProcess.RunProgramAsync(line[0], line[1..]))
        {
            Assert.Equal(2, refused.ExitCode);
            Assert.Contains("is beyond loopback", refused.Errors, StringComparison.Ordinal);
        }

        GuestProcess source = await RunAsync();
        GuestProcess destination = await ReceiveAsync($"{NetworkPair.AddressB}:0", "--insecure-network");
        Assert.Contains("warning: without TLS whoever is on the way can read and change the guest", destination.Process.Errors, StringComparison.Ordinal);
        using (PageferryProcess refused = await source.MigrateAsync(destination.Endpoint))
        {
            Assert.Equal(2, refused.ExitCode);
            Assert.Contains("is beyond loopback", refused.Errors, StringComparison.Ordinal);
        }

        await MoveAsync(source, destination, destination.Endpoint, "--insecure-network");
    }

    private async Task<GuestProcess> RunAsync()
    {
        GuestProcess source = await GuestProcess.StartInAsync(_network.A, SourceControl, ["vm", "run", "stamp", "--memory", "64M"]);
        _guests.Add(source);
        await source.MakePassesAsync(2);
        return source;
    }

    private async Task<GuestProcess> ReceiveAsync(string listen, params string[] options)
    {
        GuestProcess destination = await GuestProcess.StartInAsync(_network.B, DestinationControl, ["vm", "receive", "--listen", listen, .. options]);
        _guests.Add(destination);
        return destination;
    }

    private static async Task MoveAsync(GuestProcess source, GuestProcess destination, string to, params string[] options)
    {
        using PageferryProcess migrate = await source.MigrateAsync(to, options);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.WaitForStateAsync("running");
        await destination.MakePassesAsync(3);
    }

    private async Task MakeCertificatesAsync()
    {
        using PageferryProcess made = await PageferryProcess.RunAsync(
            "tls", "init", _directory.Path("tls"), "--host", "a", "--host", $"b,{string.Join(',', s_names)}", "--host", "c");
        Assert.True(made.ExitCode == 0, made.Errors);
    }

    private string[] Tls(string host) =>
        ["--tls-cert", _directory.Path($"tls/{host}-cert.pem"), "--tls-key", _directory.Path($"tls/{host}-key.pem"), "--tls-ca", _directory.Path("tls/ca-cert.pem")];
}
