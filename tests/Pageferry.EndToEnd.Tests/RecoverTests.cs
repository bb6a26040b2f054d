using System.Net;
using System.Text.Json;
using Pageferry.Migration.Tests;
using static Pageferry.EndToEnd.Tests.Command;

namespace Pageferry.EndToEnd.Tests;

/// <summary>
/// What a person can do when a guest's migration has lost a side, or the link between both for good. What takes out a guest that waits for pages needs KVM: a thread
/// can't be stopped there.
/// </summary>
public sealed class RecoverTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string A => _directory.Path("a.sock");

    private string B => _directory.Path("b.sock");

    private string C => _directory.Path("c.sock");

    public void Dispose() => _directory.Dispose();

    [NeedsKvm]
    [Theory]
    [InlineData("stamp", "queue", "memfd")]
    [InlineData("random", "exit", "memfd")]
    [InlineData("stamp", "queue", "anonymous")]
    [InlineData("stamp", "exit", "anonymous")]
    public async Task What_both_sides_have_of_a_guest_is_made_one_guest_again(string guest, string delivery, string backing)
    {
        using GuestProcess source = await GuestProcess.RunGuestAsync(guest, A, "--memory", "64M", "--vcpus", "2", "--backing", backing);
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--delivery", delivery);
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        using PageferryProcess migrate = await CutAfterSwitchoverAsync(source, destination, relay);
        string destinationHalf = _directory.Path("b.half");
        string sourceHalf = _directory.Path("a.half");

        // The price is said before it is paid.
        using (PageferryProcess unasked = await PageferryProcess.RunAsync("recover", "export", "--control", B, "-o", destinationHalf))
        {
            Assert.Equal(1, unasked.ExitCode);
            Assert.Contains("never goes on in that process", unasked.Errors, StringComparison.Ordinal);
            Assert.Equal("arriving", destination.State);
        }

        await DoAsync("recover", "export", "--control", B, "-o", destinationHalf, "--yes");
        await DoAsync("recover", "export", "--control", A, "-o", sourceHalf);
        Assert.Equal("exported", destination.State);
        using (PageferryProcess resume = await PageferryProcess.RunAsync("vm", "resume", "--control", B))
        {
            Assert.Equal(1, resume.ExitCode);
        }

        // A half is not a guest, and two halves are one in one order only.
        string whole = _directory.Path("whole");
        await FailAsync("it is one side's half of a guest", "vm", "run", "--from", sourceHalf, "--control", C);
        await FailAsync("Give the destination's half first", "recover", "merge", sourceHalf, destinationHalf, "-o", whole);
        await DoAsync("recover", "merge", destinationHalf, sourceHalf, "-o", whole);

        // A link that comes back changes nothing: the guest is in the files.
        relay.IsRefusing = false;
        await source.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "exported", "the source to hear of it");
        Assert.Equal("exported", destination.State);
        using GuestProcess again = await GuestProcess.RunFromAsync(whole, C);
        JsonElement status = again.Status();
        Assert.True(status.GetProperty("passes").GetUInt64() >= destination.Status().GetProperty("passes").GetUInt64(), status.ToString());
        await again.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("inside")]
    [InlineData("separate")]
    public async Task A_guest_that_stands_still_is_taken_out_whatever_becomes_of_its_engine(string engine)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", engine);
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        await source.MakePassesAsync(2);
        await DoAsync("vm", "pause", "--control", A);
        using PageferryProcess migrate = source.BeginMigration($"{relay.EndPoint}", "--mode", "postcopy", "--max-postcopy-bandwidth", "2M");
        await destination.WaitAsync(
            status => status.GetProperty("state").GetString() == "arriving" && status.GetProperty("migration").GetProperty("pages_done").GetUInt64() > 500, "some pages");
        await FailAsync("Its link to the source is there", "recover", "export", "--control", B, "-o", _directory.Path("early.half"), "--yes");
        await CutAsync(source, destination, relay);
        string destinationHalf = _directory.Path("b.half");
        string sourceHalf = _directory.Path("a.half");
        await DoAsync("recover", "export", "--control", B, "-o", destinationHalf, "--yes");
        await DoAsync("recover", "export", "--control", A, "-o", sourceHalf);
        Assert.Equal("exported", destination.State);
        if (engine == "separate")
        {
            // What it told a source that came back, the next one tells.
            PageferryProcess.Signal(destination.Status().GetProperty("engine").GetProperty("pid").GetInt32(), "KILL");
            await destination.WaitAsync(status => status.GetProperty("engine").GetProperty("restarts").GetInt32() == 1, "another engine");
        }

        relay.IsRefusing = false;
        await source.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "exported", "the source to hear of it");
        Assert.Equal("exported", destination.State);

        // The source has nothing to go on with, and keeps what it has.
        await FailAsync("the migration's phase is 'exported'", "vm", "migrate", "--control", A, "--resume", "--to", $"{relay.EndPoint}");
        Assert.Equal("stalled", source.State);
        await DoAsync("recover", "export", "--control", A, "-o", _directory.Path("a.again"));
        string whole = _directory.Path("whole");
        await DoAsync("recover", "merge", destinationHalf, sourceHalf, "-o", whole);
        using GuestProcess again = await GuestProcess.RunFromAsync(whole, C);
        Assert.Equal("paused", again.State);
        await DoAsync("vm", "resume", "--control", C);
        await again.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("inside")]
    [InlineData("separate")]
    public async Task A_guest_that_can_not_be_stopped_is_not_taken_out_and_goes_on_when_its_source_is_back(string engine)
    {
        using GuestProcess source = await GuestProcess.RunGuestAsync("stamp", A, "--memory", "64M", "--vcpus", "2", "--host", "threads");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--engine", engine);
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        using PageferryProcess migrate = await CutAfterSwitchoverAsync(source, destination, relay);
        string half = _directory.Path("b.half");
        await FailAsync("waits for a page that only the source has", "recover", "export", "--control", B, "-o", half, "--yes");
        Assert.False(File.Exists(half));
        Assert.Equal("arriving", destination.State);
        relay.IsRefusing = false;
        await destination.MakePassesAsync(3);
        await destination.WaitForStateAsync("running");
    }

    [Fact]
    public async Task A_guest_whose_destination_died_goes_back_to_the_switchover_when_a_person_vouches_for_it()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B);
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        using PageferryProcess migrate = await CutAfterSwitchoverAsync(source, destination, relay);
        destination.Process.Kill();
        await FailAsync("Nothing was done", "recover", "rollback", "--control", A, "--destination-is-fenced");

        // What can't be asked may run on.
        await FailAsync("--destination-is-fenced", "recover", "rollback", "--control", A, "--yes");
        Assert.Equal("stalled", source.State);
        await DoAsync("recover", "rollback", "--control", A, "--destination-is-fenced", "--yes");
        Assert.Equal("running", source.State);
        await source.MakePassesAsync(3);

        // It is a guest like any other.
        using GuestProcess other = await GuestProcess.ReceiveAsync(C);
        using PageferryProcess moved = await source.MigrateAsync(other.Endpoint);
        Assert.True(moved.ExitCode == 0, moved.Errors);
        await other.MakePassesAsync(3);
    }

    [Theory]
    [InlineData("inside")]
    [InlineData("separate")]
    public async Task A_destination_that_can_be_asked_drops_the_guest_before_the_source_takes_it_back(string engine)
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--end-with-input", "--engine", engine);
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        using PageferryProcess migrate = await CutAfterSwitchoverAsync(source, destination, relay, "--reconnect-for", "500ms");
        await source.WaitForStateAsync("stalled");
        relay.IsRefusing = false;
        await DoAsync("recover", "rollback", "--control", A, "--yes");
        await destination.WaitForStateAsync("fenced");
        ulong checkedThere = destination.Status().GetProperty("pages_checked").GetUInt64();
        await source.MakePassesAsync(3);
        Assert.Equal(checkedThere, destination.Status().GetProperty("pages_checked").GetUInt64());
        await FailAsync("its source has taken it back", "vm", "resume", "--control", B);
    }

    [NeedsKvm]
    [Fact]
    public async Task A_destination_that_comes_back_after_a_person_vouched_for_it_is_fenced()
    {
        using GuestProcess source = await GuestProcess.RunAsync(A, "--memory", "64M", "--vcpus", "2");
        using GuestProcess destination = await GuestProcess.ReceiveAsync(B, "--end-with-input");
        using var relay = new Relay(IPEndPoint.Parse(destination.Endpoint));
        using PageferryProcess migrate = await CutAfterSwitchoverAsync(source, destination, relay);

        // So that what a person vouches for is true: no vCPU runs.
        await DoAsync("vm", "pause", "--control", B);
        destination.Process.Signal("STOP");
        await DoAsync("recover", "rollback", "--control", A, "--destination-is-fenced", "--yes");
        await source.MakePassesAsync(1);
        relay.IsRefusing = false;
        destination.Process.Signal("CONT");
        await destination.WaitForStateAsync("fenced");
        await FailAsync("its source has taken it back", "vm", "resume", "--control", B);
        await source.MakePassesAsync(2);
    }

    /// <summary>Moves a guest, and cuts the link for good when some of its pages have followed it.</summary>
    private static async Task<PageferryProcess> CutAfterSwitchoverAsync(GuestProcess source, GuestProcess destination, Relay relay, params string[] options)
    {
        await source.MakePassesAsync(2);
        PageferryProcess migrate = source.BeginMigration($"{relay.EndPoint}", ["--mode", "postcopy", "--max-postcopy-bandwidth", "2M", .. options]);
        await destination.WaitAsync(
            status => status.GetProperty("state").GetString() == "arriving" && status.GetProperty("migration").GetProperty("pages_done").GetUInt64() > 500, "some pages");
        await CutAsync(source, destination, relay);
        return migrate;
    }

    private static async Task CutAsync(GuestProcess source, GuestProcess destination, Relay relay)
    {
        relay.IsRefusing = true;
        relay.Cut();
        await source.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() is "postcopy_paused" or "stalled", "the source to notice");
        await destination.WaitAsync(status => status.GetProperty("migration").GetProperty("phase").GetString() == "postcopy_paused", "the destination to notice");
    }
}
