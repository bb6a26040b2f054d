using System.Diagnostics;
using System.Text;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>What machines have in common, whatever runs them: threads that pause and go on, the guest's reports, its console and its end.</summary>
public abstract class Machine : IMachine
{
    private const int LongestLine = 1024;
    private const int QuickKicks = 40;

    private static readonly TimeSpan s_quickKick = TimeSpan.FromMicroseconds(250);

    private readonly object _gate = new();
    private readonly TaskCompletionSource<int> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly VcpuRecord[] _vcpus;
    private readonly Thread[] _threads;
    private int _running;
    private ulong _pagesWrong;
    private volatile string? _failure;
    private volatile bool _pausing;
    private volatile bool _stopping;
    private volatile bool _awaitingFirst;

    private protected Machine(GuestMemory memory, int vcpuCount)
    {
        Memory = memory;
        _vcpus = [.. Enumerable.Range(0, vcpuCount).Select(_ => new VcpuRecord())];
        _threads = new Thread[vcpuCount];
    }

    /// <inheritdoc/>
    public event Action? FirstInstruction;

    /// <inheritdoc/>
    public event Action<string>? ConsoleLine;

    /// <inheritdoc/>
    public abstract MachineHost Host { get; }

    /// <inheritdoc/>
    public GuestMemory Memory { get; }

    /// <inheritdoc/>
    public int VcpuCount => _vcpus.Length;

    /// <inheritdoc/>
    public Task<int> Ended => _ended.Task;

    /// <inheritdoc/>
    public MachineProgress Progress
    {
        get
        {
            ulong passes = ulong.MaxValue;
            ulong pagesChecked = 0;
            foreach (VcpuRecord vcpu in _vcpus)
            {
                passes = Math.Min(passes, Volatile.Read(ref vcpu.Passes));
                pagesChecked += Volatile.Read(ref vcpu.PagesChecked);
            }

            bool ended = _ended.Task.IsCompletedSuccessfully;
            return new MachineProgress(passes, pagesChecked, Volatile.Read(ref _pagesWrong), ended, ended ? _ended.Task.Result : 0, _failure);
        }
    }

    /// <summary>Whether the first instruction after a loaded state has not been seen yet.</summary>
    private protected bool AwaitsFirstInstruction => _awaitingFirst;

    /// <inheritdoc/>
    public void Start()
    {
        _running = _threads.Length;
        _pausing = false;
        for (int i = 0; i < _threads.Length; i++)
        {
            int index = i;
            _threads[i] = new Thread(() => RunVcpu(index)) { IsBackground = true, Name = $"vCPU {index}" };
            _threads[i].Start();
        }

        if (_awaitingFirst)
        {
            LookForFirstInstruction();
        }
    }

    /// <inheritdoc/>
    public void Pause()
    {
        lock (_gate)
        {
            _pausing = true;
            KickAll();
            while (_running > 0)
            {
                _ = Monitor.Wait(_gate);
            }
        }
    }

    /// <inheritdoc/>
    public void Resume()
    {
        lock (_gate)
        {
            _pausing = false;
            Monitor.PulseAll(_gate);
        }
    }

    /// <inheritdoc/>
    public byte[] SaveState() =>
        MachineState.Write(Host, [.. _vcpus.Select((vcpu, i) => new MachineState.Vcpu(vcpu.Passes, vcpu.PagesChecked, vcpu.Ended, SaveVcpu(i)))]);

    /// <inheritdoc/>
    public void LoadState(ReadOnlySpan<byte> state)
    {
        MachineState.Vcpu[] saved = MachineState.Read(state, Host, VcpuCount);
        for (int i = 0; i < saved.Length; i++)
        {
            LoadVcpu(i, saved[i].State);
            _vcpus[i].Passes = saved[i].Passes;
            _vcpus[i].PagesChecked = saved[i].PagesChecked;
            _vcpus[i].Ended = saved[i].Ended;
        }

        _awaitingFirst = true;
    }

    /// <summary>Stops the vCPUs for good, then gives everything back, memory last.</summary>
    public void Dispose()
    {
        _stopping = true;
        Pause();
        Resume();
        foreach (Thread? thread in _threads)
        {
            thread?.Join();
        }

        DisposeVcpus();
        Memory.Dispose();
    }

    /// <summary>Runs a vCPU, on its own thread, until <see cref="Park"/> says that it is over.</summary>
    private protected abstract void Run(int vcpu);

    /// <summary>Makes a vCPU that runs come back to where it parks.</summary>
    private protected abstract void Kick(int vcpu);

    private protected abstract byte[] SaveVcpu(int vcpu);

    private protected abstract void LoadVcpu(int vcpu, ReadOnlySpan<byte> state);

    private protected abstract void DisposeVcpus();

    /// <summary>Whether a vCPU may go on without parking.</summary>
    private protected bool MayRun(int vcpu) => !_pausing && !_stopping && !_vcpus[vcpu].Ended;

    /// <summary>Waits on the vCPU's thread as long as the machine is paused.</summary>
    /// <returns>Whether the vCPU is to go on.</returns>
    private protected bool Park(int vcpu)
    {
        lock (_gate)
        {
            if (_pausing || _vcpus[vcpu].Ended)
            {
                _running--;
                Monitor.PulseAll(_gate);
                while (!_stopping && (_pausing || _vcpus[vcpu].Ended))
                {
                    _ = Monitor.Wait(_gate);
                }

                _running++;
            }

            return !_stopping;
        }
    }

    /// <summary>The vCPU has completed a pass.</summary>
    private protected void Report(int vcpu, ulong pagesChecked)
    {
        Volatile.Write(ref _vcpus[vcpu].PagesChecked, _vcpus[vcpu].PagesChecked + pagesChecked);
        Volatile.Write(ref _vcpus[vcpu].Passes, _vcpus[vcpu].Passes + 1);
    }

    /// <summary>The vCPU has found a page that is not as it was left.</summary>
    private protected void ReportWrong() => Interlocked.Increment(ref _pagesWrong);

    /// <summary>The vCPU's work has ended with a code: not 0 ends the guest, 0 when all vCPUs have ended.</summary>
    private protected void End(int vcpu, int code)
    {
        _vcpus[vcpu].Ended = true;
        if (code != 0)
        {
            _pausing = true;
            _ = _ended.TrySetResult(code);
        }
        else if (Array.TrueForAll(_vcpus, record => record.Ended))
        {
            _ = _ended.TrySetResult(0);
        }
    }

    /// <summary>The vCPU can't go on: the machine stands still and says why.</summary>
    private protected void Fail(int vcpu, string reason)
    {
        _failure ??= $"vCPU {vcpu} {reason}";
        End(vcpu, 1);
    }

    /// <summary>A byte of the guest's console.</summary>
    private protected void Print(int vcpu, byte character)
    {
        StringBuilder line = _vcpus[vcpu].Line;
        if (character != '\n')
        {
            _ = line.Append((char)character);
        }

        if (character == '\n' || line.Length == LongestLine)
        {
            ConsoleLine?.Invoke(line.ToString());
            _ = line.Clear();
        }
    }

    /// <summary>The guest has executed an instruction since its state was loaded.</summary>
    private protected void SeeFirstInstruction()
    {
        if (_awaitingFirst)
        {
            lock (_gate)
            {
                if (!_awaitingFirst)
                {
                    return;
                }

                _awaitingFirst = false;
            }

            FirstInstruction?.Invoke();
        }
    }

    private void KickAll()
    {
        for (int i = 0; i < _vcpus.Length; i++)
        {
            Kick(i);
        }
    }

    private void RunVcpu(int vcpu)
    {
        try
        {
            Run(vcpu);
        }
        catch (Exception failure)
        {
            Fail(vcpu, $"failed: {failure.Message}");
        }

        lock (_gate)
        {
            _running--;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Kicks the vCPUs, so that each compares its registers with those loaded: often at first, then every millisecond.</summary>
    private void LookForFirstInstruction() => new Thread(KickUntilFirstInstruction) { IsBackground = true, Name = "first instruction" }.Start();

    private void KickUntilFirstInstruction()
    {
        for (int kicks = 0; _awaitingFirst && !_pausing; kicks++)
        {
            KickAll();
            if (kicks < QuickKicks)
            {
                long until = Stopwatch.GetTimestamp() + (s_quickKick.Ticks * Stopwatch.Frequency / TimeSpan.TicksPerSecond);
                while (_awaitingFirst && Stopwatch.GetTimestamp() < until)
                {
                    _ = Thread.Yield();
                }
            }
            else
            {
                Thread.Sleep(1);
            }
        }
    }

    private sealed class VcpuRecord
    {
        internal readonly StringBuilder Line = new();
        internal ulong Passes;
        internal ulong PagesChecked;
        internal volatile bool Ended;
    }
}
