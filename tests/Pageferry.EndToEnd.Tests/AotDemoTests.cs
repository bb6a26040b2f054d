using System.Globalization;
using Pageferry.Linux;

namespace Pageferry.EndToEnd.Tests;

public sealed class AotDemoTests
{
    [Fact]
    public async Task The_native_binary_runs_the_demo()
    {
        using PageferryProcess demo = await PageferryProcess.RunAsync("demo", "--memory", "64M", "--json");
        Assert.True(demo.ExitCode == 0, demo.Errors + demo.Output);
        DemoReport.Check(demo.Output);
    }

    [Fact]
    public async Task The_native_binary_has_help_version_and_doctor()
    {
        foreach (string[] arguments in (string[][])[["--help"], ["--version"], ["vm", "run", "--help"], ["doctor", "--json"]])
        {
            using PageferryProcess run = await PageferryProcess.RunAsync(arguments);
            Assert.Equal(0, run.ExitCode);
            Assert.NotEmpty(run.Output);
            Assert.Empty(run.Errors);
        }
    }

    [Fact]
    public async Task A_holder_that_keeps_all_that_it_can_has_no_more_than_2_MiB_of_memory_of_its_own()
    {
        using var directory = new TemporaryDirectory();
        string path = directory.Path("holder.sock");
        using PageferryProcess hold = PageferryProcess.Start("hold", "--socket", path);
        await hold.WaitUntilAsync(() => hold.Output.Length > 0 || hold.HasExited, "the holder");
        Assert.False(hold.HasExited, hold.Errors);
        using var client = UnixSocket.Connect(path, UnixSocketType.SequencedPackets);
        using var counter = new EventFd();
        FileDescriptor[] many = [.. Enumerable.Repeat(counter.Descriptor, 48)];
        for (byte record = 0; record < 16; record++)
        {
            // Version, put, offered, the name's length; the secret; the name; the blob.
            client.Send([2, 1, 0, 1, .. new byte[32], (byte)('a' + record), .. new byte[8 << 10]], many);
            var answer = new byte[64];
            var claim = new FileDescriptor?[1];
            Assert.Equal(4, client.Receive(answer, claim, out int count));
            Assert.Equal((0, 1), (answer[1], count));
            claim[0]!.Dispose();
        }

        string dirty = File.ReadLines($"/proc/{hold.Pid}/smaps_rollup").Single(line => line.StartsWith("Private_Dirty:", StringComparison.Ordinal));
        TestContext.Current.TestOutputHelper?.WriteLine(dirty);
        Assert.InRange(int.Parse(dirty.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture), 1, 2 << 10);
    }
}
