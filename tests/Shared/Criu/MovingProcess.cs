using System.Diagnostics;

namespace Pageferry.Testing;

/// <summary>One of the C programs beside this file, which says how it is in a file: before a dump, and after a restore somewhere else.</summary>
internal sealed class MovingProcess : IDisposable
{
    private const int WordBytes = sizeof(ulong);
    private const int ReportBytes = WordBytes * (512 + PassesKept + 512);
    private const int PassesKept = 1024;
    private const int StallsAt = 512 + PassesKept;

    private readonly Process _process;
    private readonly string _report;

    private MovingProcess(Process process, string report)
    {
        _process = process;
        _report = report;
    }

    /// <summary>Its process id, where it was started and where it is restored.</summary>
    internal int Pid => _process.Id;

    /// <summary>How many passes over its memory it has ended.</summary>
    internal ulong Passes => Word(0, 2);

    /// <summary>How many words it did not find as they should have been.</summary>
    internal ulong Bad => Word(0, 3);

    /// <summary>The longest time that it did not run, since it began or this was set to zero.</summary>
    internal TimeSpan LongestGap => TimeSpan.FromMicroseconds(Word(0, 5) / 1000.0);

    /// <summary>Starts <c>fill_and_check.c</c>.</summary>
    /// <param name="directory">Where the program and its report go.</param>
    /// <param name="mebibytes">How much memory each process fills.</param>
    /// <param name="order">sequential or random.</param>
    /// <param name="processes">How many processes.</param>
    internal static Task<MovingProcess> FillAndCheckAsync(string directory, int mebibytes, string order, int processes = 1) =>
        StartAsync("fill_and_check", directory, processes, $"{mebibytes}", order, $"{processes}");

    /// <summary>Starts <c>change_address_space.c</c>.</summary>
    internal static Task<MovingProcess> ChangeAddressSpaceAsync(string directory, int mebibytes) => StartAsync("change_address_space", directory, 1, $"{mebibytes}");

    /// <summary>How many passes a process of a tree has ended.</summary>
    internal ulong PassesOf(int number) => Word(number, 2);

    /// <summary>How many bad words a process of a tree has found.</summary>
    internal ulong BadOf(int number) => Word(number, 3);

    /// <summary>Has it do what it does once, now or when it runs again.</summary>
    internal void Go() => SetWord(1, 1);

    /// <summary>Forgets the longest gap.</summary>
    internal void ForgetGap() => SetWord(5, 0);

    /// <summary>How many page checks took how long: the upper ends of the buckets, an eighth of a power of two each.</summary>
    internal IEnumerable<(TimeSpan Longest, ulong Count)> Stalls()
    {
        for (int bucket = 0; bucket < 512; bucket++)
        {
            if (Word(0, StallsAt + bucket) is > 0 and var count)
            {
                double ns = Math.Pow(2, bucket / 8) * (1 + (((bucket % 8) + 1) / 8.0));
                yield return (TimeSpan.FromMicroseconds(ns / 1000), count);
            }
        }
    }

    /// <summary>Forgets what it has found wrong.</summary>
    internal void ForgetBad() => SetWord(3, 0);

    /// <summary>Waits until it has ended so many passes since it was started.</summary>
    internal Task ReachAsync(ulong passes) => WaitAsync(() => Passes >= passes, TimeSpan.FromMinutes(2));

    /// <summary>Waits until it has ended so many passes more.</summary>
    internal Task MakePassesAsync(ulong more) => ReachAsync(Passes + more);

    /// <summary>Waits until the original process has ended: dumped, it is killed.</summary>
    internal Task LeaveAsync() => _process.WaitForExitAsync(new CancellationTokenSource(TimeSpan.FromMinutes(1)).Token);

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            _process.WaitForExit();
        }

        _process.Dispose();
    }

    private static async Task<MovingProcess> StartAsync(string program, string directory, int processes, params string[] arguments)
    {
        string binary = Path.Combine(directory, program);
        string source = Path.Combine(AppContext.BaseDirectory, $"{program}.c");
        using (var compiler = Process.Start("gcc", ["-O2", "-Wall", "-Werror", "-pthread", "-o", binary, source]))
        {
            await compiler.WaitForExitAsync();
            Assert.Equal(0, compiler.ExitCode);
        }

        string report = Path.Combine(directory, $"{program}.report");
        var moving = new MovingProcess(Process.Start(binary, [report, .. arguments]), report);
        await WaitAsync(() => File.Exists(report) && Enumerable.Range(0, processes).All(number => moving.Word(number, 0) == 1), TimeSpan.FromMinutes(1));
        return moving;
    }

    private static async Task WaitAsync(Func<bool> holds, TimeSpan longest)
    {
        var clock = Stopwatch.StartNew();
        while (!holds())
        {
            Assert.True(clock.Elapsed < longest, $"A moving process did not get on within {longest}.");
            await Task.Delay(10);
        }
    }

    private ulong Word(int process, int number)
    {
        using FileStream file = File.Open(_report, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        file.Position = (process * (long)ReportBytes) + (number * WordBytes);
        var word = new byte[WordBytes];
        return file.ReadAtLeast(word, word.Length, throwOnEndOfStream: false) == word.Length ? BitConverter.ToUInt64(word) : 0;
    }

    private void SetWord(int number, ulong value)
    {
        using FileStream file = File.Open(_report, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.Position = number * WordBytes;
        file.Write(BitConverter.GetBytes(value));
    }
}
