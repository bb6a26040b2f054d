using System.Diagnostics;

namespace Pageferry.EndToEnd.Tests;

public sealed class DemoEndTests
{
    [Theory]
    [InlineData("KILL")]
    [InlineData("INT")]
    [InlineData("TERM")]
    [InlineData("HUP")]
    public async Task However_the_demo_ends_its_processes_and_sockets_go_with_it(string signal)
    {
        // Threads are slower, so the demo is sure to be in its middle.
        using PageferryProcess demo = PageferryProcess.Start("demo", "--memory", "1G", "--host", "threads");
        await demo.WaitUntilAsync(() => demo.Output.Contains("destination  pid", StringComparison.Ordinal), "both processes");
        Assert.NotEmpty(Leftovers.Of(demo.Pid));
        demo.Signal(signal);
        await demo.WaitForExitAsync();
        Assert.NotEqual(0, demo.ExitCode);
        var clock = Stopwatch.StartNew();
        while (Leftovers.Of(demo.Pid).Length > 0 && clock.Elapsed < TimeSpan.FromSeconds(10))
        {
            await Task.Delay(50);
        }

        Assert.Empty(Leftovers.Of(demo.Pid));
    }
}
