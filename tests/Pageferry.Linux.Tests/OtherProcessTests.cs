using System.Diagnostics;

namespace Pageferry.Linux.Tests;

public sealed class OtherProcessTests : IDisposable
{
    private readonly Process _sleeper = Process.Start("sleep", ["600"]);

    public void Dispose()
    {
        _sleeper.Kill();
        _sleeper.WaitForExit();
        _sleeper.Dispose();
    }

    [Fact]
    public async Task A_process_stands_still_until_it_is_continued()
    {
        OtherProcess.Stop(_sleeper.Id);
        await AwaitStateAsync('T');
        OtherProcess.Continue(_sleeper.Id);
        await AwaitStateAsync('S');
    }

    [Fact]
    public async Task A_process_that_stands_still_is_ended()
    {
        OtherProcess.Stop(_sleeper.Id);
        await AwaitStateAsync('T');
        OtherProcess.Kill(_sleeper.Id);
        await _sleeper.WaitForExitAsync(TestContext.Current.CancellationToken);
    }

    [Fact]
    public void A_process_that_is_not_there_is_said()
    {
        const int AbovePids = 1 << 22;
        LinuxException failure = Assert.Throws<LinuxException>(() => OtherProcess.Stop(AbovePids));
        Assert.Equal(Errno.ESRCH, failure.Errno);
        failure = Assert.Throws<LinuxException>(() => ProcessDescriptor.Open(AbovePids));
        Assert.Equal(Errno.ESRCH, failure.Errno);
    }

    [Fact]
    public void A_process_that_was_opened_is_ended_and_its_end_is_seen()
    {
        using var process = ProcessDescriptor.Open(_sleeper.Id);
        Assert.True(process.MayBeSignalled);
        Assert.False(process.HasEnded);
        Assert.False(process.Wait(1));
        process.Kill();
        Assert.True(process.Wait(-1));
        Assert.True(process.HasEnded);

        // Once more does no harm, also when its number is free.
        _sleeper.WaitForExit();
        process.Kill();
        Assert.True(process.HasEnded);
    }

    [Fact]
    public async Task A_descriptor_that_was_duplicated_for_programs_is_open_in_them_under_its_number()
    {
        (UnixSocket one, UnixSocket other) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (one)
        using (other)
        using (FileDescriptor duplicate = other.Descriptor.DuplicateForPrograms())
        using (var list = Process.Start(new ProcessStartInfo("readlink", [$"/proc/self/fd/{other.Descriptor.Number}", $"/proc/self/fd/{duplicate.Number}"]) { RedirectStandardOutput = true, UseShellExecute = false })!)
        {
            string links = await list.StandardOutput.ReadToEndAsync();
            await list.WaitForExitAsync();
            _ = Assert.Single(links.Split('\n', StringSplitOptions.RemoveEmptyEntries), static link => link.StartsWith("socket:", StringComparison.Ordinal));
        }
    }

    private async Task AwaitStateAsync(char state)
    {
        var clock = Stopwatch.StartNew();
        while (File.ReadAllText($"/proc/{_sleeper.Id}/stat") is var stat && stat[stat.LastIndexOf(')') + 2] != state)
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60), $"The process did not come into state {state}.");
            await Task.Delay(10);
        }
    }
}
