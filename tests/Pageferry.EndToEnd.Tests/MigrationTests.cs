using System.Net;
using System.Net.Sockets;
using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

public sealed class MigrationTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    private string C => _directory.Path("c.sock");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task A_guest_moves_and_its_source_ends_when_all_is_handed_over()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        Assert.Contains($"The guest runs at {destination.Endpoint} and has all its memory: downtime", migrate.Output, StringComparison.Ordinal);
        await source.Process.WaitForExitAsync();
        Assert.Equal(0, source.Process.ExitCode);
        JsonElement status = await destination.WaitForStateAsync("running");
        Assert.Equal("completed", status.GetProperty("migration").GetProperty("phase").GetString());
        Assert.Equal("destination", status.GetProperty("migration").GetProperty("role").GetString());
        Assert.Equal(2, status.GetProperty("vcpus").GetInt32());
        await destination.MakePassesAsync(3);
    }

    [NeedsKvm]
    [Theory]
    [InlineData("log", "memfd")]
    [InlineData("ring", "memfd")]
    [InlineData("ring", "anonymous")]
    public async Task What_a_guest_writes_while_its_memory_goes_before_it_is_sent_again(string tracking, string backing)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2", "--backing", backing, "--dirty-tracking", tracking);
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = await PageferryProcess.RunAsync(
            "vm", "migrate", "--control", A, "--to", destination.Endpoint, "--mode", "precopy", "--downtime-limit", "60s", "--dirty-tracking", tracking, "--validate");
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        Assert.Contains(" 0 demand, 0 background", migrate.Output, StringComparison.Ordinal);
        await destination.MakePassesAsync(3);
    }

    [NeedsKvm]
    [Fact]
    public async Task Every_register_arrives_with_the_guest()
    {
        // Some seconds of counting, in which it moves.
        string guest = _directory.Path("registers.bin");
        await File.WriteAllBytesAsync(guest, RegisterGuest.Assemble(3_000_000_000));
        using GuestProcess source = await GuestProcess.RunGuestAsync(guest, A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.Process.WaitForExitAsync();
        Assert.True(destination.Process.ExitCode == 0, destination.Process.Output);
        Assert.Contains("The guest ended with code 0", destination.Process.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_guest_that_arrived_can_move_on()
    {
        using GuestProcess first = await GuestProcess.RunAsync(A, "--memory", "64M");
        await first.MakePassesAsync(2);
        using GuestProcess second = await GuestProcess.ReceiveAsync(B);
        using (PageferryProcess migrate = await first.MigrateAsync(second.Endpoint))
        {
            Assert.True(migrate.ExitCode == 0, migrate.Errors);
        }

        await second.WaitForStateAsync("running");
        using GuestProcess third = await GuestProcess.ReceiveAsync(C);
        using (PageferryProcess migrate = await second.MigrateAsync(third.Endpoint))
        {
            Assert.True(migrate.ExitCode == 0, migrate.Errors);
        }

        await third.MakePassesAsync(3);
    }

    [Fact]
    public async Task A_guest_of_a_number_of_passes_ends_with_0_where_it_arrived()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--passes", "4000");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.Process.WaitForExitAsync();
        Assert.Equal(0, destination.Process.ExitCode);
        Assert.Contains("The guest ended with code 0", destination.Process.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_second_migration_of_the_same_guest_is_refused_and_the_first_goes_on()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "1G", "--backing", "anonymous");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using GuestProcess other = await GuestProcess.ReceiveAsync(C);
        await source.MakePassesAsync(2);
        using PageferryProcess first = source.BeginMigration(destination.Endpoint);
        await source.WaitForStateAsync("leaving");
        using (PageferryProcess second = await source.MigrateAsync(other.Endpoint))
        {
            Assert.Equal(1, second.ExitCode);
            Assert.Contains("it is being moved already", second.Errors, StringComparison.Ordinal);
        }

        await first.WaitForExitAsync();
        Assert.Equal(0, first.ExitCode);
        await destination.MakePassesAsync(3);
        Assert.Equal("waiting", other.State);
    }

    [Fact]
    public async Task A_guest_is_not_moved_to_its_own_process()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        string endpoint = destination.Endpoint;
        using (PageferryProcess migrate = await source.MigrateAsync(endpoint))
        {
            Assert.True(migrate.ExitCode == 0, migrate.Errors);
        }

        await destination.WaitForStateAsync("running");
        using PageferryProcess itself = await destination.MigrateAsync(endpoint);
        Assert.Equal(1, itself.ExitCode);

        // It takes one guest; from then on nobody listens there.
        Assert.Contains("Nobody listens there (ECONNREFUSED)", itself.Errors, StringComparison.Ordinal);
        Assert.Contains("goes on here", itself.Errors, StringComparison.Ordinal);
        await destination.MakePassesAsync(2);
    }

    [Fact]
    public async Task Nothing_arrived_yet_can_not_be_moved()
    {
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await destination.MigrateAsync("127.0.0.1:9");
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("no guest has arrived here yet", migrate.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_port_in_use_is_refused_and_the_first_process_waits_on()
    {
        using GuestProcess first = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess second = await PageferryProcess.RunAsync("vm", "receive", "--listen", first.Endpoint, "--control", C);
        Assert.Equal(1, second.ExitCode);
        Assert.Contains(first.Endpoint, second.Errors, StringComparison.Ordinal);
        Assert.Contains("in use", second.Errors, StringComparison.OrdinalIgnoreCase);
        Assert.False(Path.Exists(C));
        Assert.Equal("waiting", first.State);
    }

    [Fact]
    public async Task Where_nobody_listens_the_guest_runs_on_and_can_move_elsewhere()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        await source.MakePassesAsync(2);
        using (PageferryProcess nobody = await source.MigrateAsync(UnusedEndpoint()))
        {
            Assert.Equal(1, nobody.ExitCode);
            Assert.Contains("goes on here", nobody.Errors, StringComparison.Ordinal);
        }

        Assert.Equal("running", source.State);
        await source.MakePassesAsync(2);
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint);
        Assert.True(migrate.ExitCode == 0, migrate.Errors);
        await destination.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("")]
    [InlineData("HTTP/1.1 400 Bad Request\r\n\r\n")]
    public async Task A_peer_that_speaks_something_else_leaves_the_guest_running(string answer)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        await source.MakePassesAsync(2);
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        Task peer = Task.Run(async () =>
        {
            using TcpClient client = await listener.AcceptTcpClientAsync();
            await client.GetStream().WriteAsync(System.Text.Encoding.ASCII.GetBytes(answer));
        });
        using PageferryProcess migrate = await source.MigrateAsync(listener.LocalEndpoint.ToString()!);
        await peer;
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains("goes on here", migrate.Errors, StringComparison.Ordinal);
        await source.MakePassesAsync(2);
    }

    [Fact]
    public async Task A_destination_killed_before_the_switchover_leaves_the_guest_running()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M");
        await source.MakePassesAsync(2);
        string endpoint;
        using (GuestProcess destination = await GuestProcess.ReceiveAsync(B))
        {
            endpoint = destination.Endpoint;

            // Stopped, its kernel still accepts connections: the source is in the middle of its handshake when the kill comes.
            destination.Process.Signal("STOP");
            using PageferryProcess migrate = source.BeginMigration(endpoint);
            await source.WaitForStateAsync("leaving");
            destination.Process.Kill();
            await migrate.WaitForExitAsync();
            Assert.Equal(1, migrate.ExitCode);
            Assert.Contains("goes on here", migrate.Errors, StringComparison.Ordinal);
        }

        await source.MakePassesAsync(2);
    }

    [Fact]
    public async Task A_guest_does_not_wait_at_the_rate_that_the_background_is_held_to()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "1");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = await source.MigrateAsync(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "1M");
        Assert.True(migrate.ExitCode == 0, migrate.Errors);

        // It goes over its memory page by page, just where the background follows it: held to the rate it would come by almost all pages in the background.
        JsonElement migration = destination.Status().GetProperty("migration");
        ulong demand = migration.GetProperty("pages_demand").GetUInt64();
        ulong background = migration.GetProperty("pages_background").GetUInt64();
        Assert.True(demand > 3 * background, migration.ToString());
    }

    [Fact]
    public async Task A_source_killed_after_the_switchover_stalls_the_guest_and_the_destination_says_so()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "2G", "--backing", "anonymous");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--reconnect-for", "10s", "--stall-warning", "200ms");
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "64M");
        await destination.WaitForStateAsync("arriving");
        source.Process.Kill();

        // The link may only be lost: its source is waited for, and the guest stalls meanwhile.
        JsonElement paused = await destination.WaitAsync(
            status => status.GetProperty("migration").TryGetProperty("stall", out _) && status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused",
            "a stall without a link");
        Assert.Contains("the source", paused.GetProperty("migration").GetProperty("waits_for").GetString(), StringComparison.Ordinal);
        JsonElement status = await destination.WaitForStateAsync("stalled");
        Assert.NotEmpty(status.GetProperty("error").GetString()!);
        Assert.Equal(0UL, status.GetProperty("pages_wrong").GetUInt64());
        await migrate.WaitForExitAsync();
        Assert.Equal(1, migrate.ExitCode);

        // It stays stalled: no page is made up for it.
        ulong passes = status.GetProperty("passes").GetUInt64();
        await Task.Delay(500);
        status = destination.Status();
        Assert.Equal("stalled", status.GetProperty("state").GetString());
        Assert.Equal(0UL, status.GetProperty("pages_wrong").GetUInt64());
        Assert.Equal(passes, status.GetProperty("passes").GetUInt64());
        using PageferryProcess stop = await PageferryProcess.RunAsync("vm", "stop", "--control", B, "--yes");
        Assert.Equal(0, stop.ExitCode);
        await destination.Process.WaitForExitAsync();
    }

    [Fact]
    public async Task A_destination_killed_after_the_switchover_leaves_the_source_with_the_memory_and_a_reason()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "2G", "--backing", "anonymous");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        await source.MakePassesAsync(2);
        using PageferryProcess migrate = source.BeginMigration(destination.Endpoint, "--mode", "postcopy", "--max-postcopy-bandwidth", "64M", "--reconnect-for", "3s");
        await destination.WaitForStateAsync("arriving");
        destination.Process.Kill();
        JsonElement paused = await source.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused", "a lost link");
        Assert.Contains("the destination", paused.GetProperty("migration").GetProperty("waits_for").GetString(), StringComparison.Ordinal);
        JsonElement status = await source.WaitForStateAsync("stalled");
        Assert.Contains("lost its destination after switchover", status.GetProperty("error").GetString(), StringComparison.Ordinal);
        Assert.Contains("pageferry recover rollback", status.GetProperty("error").GetString(), StringComparison.Ordinal);
        await migrate.WaitForExitAsync();
        Assert.Equal(1, migrate.ExitCode);
        Assert.False(source.Process.HasExited);
    }

    private static string UnusedEndpoint()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return listener.LocalEndpoint.ToString()!;
    }
}
