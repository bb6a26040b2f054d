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

    /// <summary>Starts a process that ends when the caller's thread does, however that comes.</summary>
    /// <param name="command">Its command line.</param>
    public static PeerProcess Start(params string[] command)
    {
        string[] bound = ["--pdeathsig", "KILL", "--", .. command];
        var start = new ProcessStartInfo("setpriv", bound) { UseShellExecute = false, RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        var peer = new PeerProcess(Process.Start(start)!);
        peer._process.OutputDataReceived += (_, e) => peer.Take(e.Data);
        peer._process.ErrorDataReceived += (_, e) => peer.TakeError(e.Data);
        peer._process.BeginOutputReadLine();
        peer._process.BeginErrorReadLine();
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

    private void Take(string? line)
    {
        if (line == BenchGuest.Tick)
        {
            long now = Stopwatch.GetTimestamp();
            _ = Interlocked.CompareExchange(ref _firstTick, now, 0);
            Volatile.Write(ref _lastTick, now);
            _ = Interlocked.Increment(ref _ticks);
            _ticked.Set();
        }
        else if (line is not null)
        {
            _lines.Add(line);
        }
        else
        {
            _lines.Add("ended");
        }
    }

    private void TakeError(string? line)
    {
        lock (_errors)
        {
            _errors.Add(line ?? string.Empty);
        }
    }

    private InvalidOperationException Failure(string what)
    {
        lock (_errors)
        {
            return new($"{_process.StartInfo.ArgumentList[3]} (process {_process.Id}) {what}. {string.Join(' ', _errors)}");
        }
    }
}
