using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;

namespace Pageferry.Bench;

/// <summary>A process with a guest, or one that waits for it. What it writes is the guest's console, and answers between that begin with a word.</summary>
internal sealed class PeerProcess : IDisposable
{
    /// <summary>How long anything may take: much longer than it does.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    /// <summary>USER_HZ.</summary>
    private const double CpuTicksPerSecond = 100;

    /// <summary>By how much the threads that note the time of ticks are favoured over those that they watch.</summary>
    private const int Favour = 10;

    private readonly Process _process;
    private readonly BlockingCollection<string> _lines = [];
    private readonly ManualResetEventSlim _ticked = new();
    private readonly List<string> _errors = [];
    private int _ticks;
    private long _firstTick;
    private long _lastTick;

    private PeerProcess(Process process) => _process = process;

    /// <summary>How often the guest has ticked here.</summary>
    public int Ticks => Volatile.Read(ref _ticks);

    /// <summary>When it did for the first time, by a clock that all have in common.</summary>
    public TimeSpan FirstTick => Stopwatch.GetElapsedTime(0, Volatile.Read(ref _firstTick));

    /// <summary>And for the last time.</summary>
    public TimeSpan LastTick => Stopwatch.GetElapsedTime(0, Volatile.Read(ref _lastTick));

    /// <summary>CPU time that it has used.</summary>
    public TimeSpan Cpu
    {
        get
        {
            string stat = File.ReadAllText($"/proc/{_process.Id}/stat");
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return TimeSpan.FromSeconds((long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture)) / CpuTicksPerSecond);
        }
    }

    /// <summary>Favours this process over those it is going to start.</summary>
    public static void FavourThisProcess() => Comparison.Run(["renice", "-n", $"-{Favour}", "-p", $"{Environment.ProcessId}"]);

    /// <summary>Starts a process that ends when the caller's thread does, however that comes.</summary>
    /// <param name="command">Its command line.</param>
    public static PeerProcess Start(params string[] command)
    {
        string[] bound = ["--pdeathsig", "KILL", "--", "nice", "-n", $"{Favour}", .. command];
        var start = new ProcessStartInfo("setpriv", bound) { UseShellExecute = false, RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        var peer = new PeerProcess(Process.Start(start)!);
        new Thread(() => ReadLines(peer._process.StandardOutput, peer.Take)) { IsBackground = true }.Start();
        new Thread(() => ReadLines(peer._process.StandardError, peer.TakeError)) { IsBackground = true }.Start();
        return peer;
    }

    /// <summary>Tells it something.</summary>
    public void Tell(string line) => _process.StandardInput.WriteLine(line);

    /// <summary>Waits for a line.</summary>
    /// <param name="word">Its first word.</param>
    /// <returns>The rest of it.</returns>
    /// <exception cref="InvalidOperationException">Something else came, or nothing in time.</exception>
    public string Expect(string word)
    {
        string line = _lines.TryTake(out string? taken, Patience) ? taken : throw Failure($"did not say '{word}' within {Patience.TotalSeconds} s");
        return line.Split(' ')[0] == word ? line[word.Length..].TrimStart() : throw Failure($"said '{line}' where '{word}' was expected");
    }

    /// <summary>Waits until the guest has ticked so often here.</summary>
    public void AwaitTicks(int count)
    {
        while (Ticks < count)
        {
            _ticked.Reset();
            if (Ticks < count && !_ticked.Wait(Patience))
            {
                throw Failure("has a guest that does not tick");
            }
        }
    }

    /// <summary>Ends it.</summary>
    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
        _lines.Dispose();
        _ticked.Dispose();
    }

    private static void ReadLines(StreamReader from, Action<string> take)
    {
        while (from.ReadLine() is { } line)
        {
            take(line);
        }
    }

    private void Take(string line)
    {
        if (line == BenchGuest.Tick)
        {
            long now = Stopwatch.GetTimestamp();
            _ = Interlocked.CompareExchange(ref _firstTick, now, 0);
            Volatile.Write(ref _lastTick, now);
            _ = Interlocked.Increment(ref _ticks);
            _ticked.Set();
        }
        else
        {
            _lines.Add(line);
        }
    }

    private void TakeError(string line)
    {
        lock (_errors)
        {
            _errors.Add(line);
        }
    }

    private InvalidOperationException Failure(string what)
    {
        lock (_errors)
        {
            return new($"{_process.StartInfo.ArgumentList[6]} (process {_process.Id}) {what}. {string.Join(' ', _errors)}");
        }
    }
}
