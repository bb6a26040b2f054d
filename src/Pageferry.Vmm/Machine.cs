using System.Text;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>What machines have in common, whatever runs them: threads that pause and go on, the guest's reports, its console and its end.</summary>
/// <remarks>
/// The vCPU threads exist from the beginning and wait, so that starting a guest that has arrived costs a wake-up and nothing else.
/// </remarks>
public abstract class Machine : IMachine
{
    private const int LongestLine = 1024;

    /// <summary>How often vCPUs are kicked to see whether they have executed, and after how many kicks it becomes half as often each time.</summary>
    private const int QuickKicks = 40;
    private static readonly TimeSpan s_firstKick = TimeSpan.FromMicroseconds(250);
    private static readonly TimeSpan s_rarestKick = TimeSpan.FromMilliseconds(16);

    /// <summary>Guards whether the machine was started, and the way to its first instruction.</summary>
    private readonly Lock _starting = new();
    private Thread? _kicker;
    private bool _started;
    private volatile bool _awaitingFirst; // read anywhere

    private readonly Lock _console = new();
    private readonly TaskCompletionSource<int> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly VcpuRecord[] _vcpus;
    private readonly Thread[] _threads;
    private ulong _pagesWrong;
    private volatile string? _failure;

    private protected Machine(GuestMemory memory, int vcpuCount)
    {
        Memory = memory;
        _vcpus = [.. Enumerable.Range(0, vcpuCount).Select(_ => new VcpuRecord())];
        _threads = new Thread[vcpuCount];
        Gate = new VcpuGate(vcpuCount, Kick, () => Engine?.InterruptWaits());
    }

    /// <inheritdoc/>
    public event Action? FirstInstruction;

    /// <inheritdoc/>
    public event Action<string>? ConsoleLine;

    /// <inheritdoc/>
    public abstract MachineHost Host { get; }

    /// <inheritdoc/>
    public abstract DirtyTracking DirtyTracking { get; }

    /// <inheritdoc/>
    public GuestMemory Memory { get; }

    /// <inheritdoc/>
    public FaultEngine? Engine
    {
        get;
        set
        {
            field = value;
            Attend(value);
        }
    }

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
            ulong passesHere = ulong.MaxValue;
            ulong pagesChecked = 0;
            foreach (VcpuRecord vcpu in _vcpus)
            {
                ulong completed = Volatile.Read(ref vcpu.Passes);
                passes = Math.Min(passes, completed);
                passesHere = Math.Min(passesHere, completed - Math.Min(completed, Volatile.Read(ref vcpu.PassesLoaded)));
                pagesChecked += Volatile.Read(ref vcpu.PagesChecked);
            }

            bool ended = _ended.Task.IsCompletedSuccessfully;
            return new MachineProgress(passes, passesHere, pagesChecked, Volatile.Read(ref _pagesWrong), ended, ended ? _ended.Task.Result : 0, _failure);
        }
    }

    /// <summary>Whether the first instruction after a loaded state has not been seen yet.</summary>
    private protected bool AwaitsFirstInstruction => _awaitingFirst;

    /// <summary>Where the vCPUs' threads stand still.</summary>
    private protected VcpuGate Gate { get; }

    /// <inheritdoc/>
    public void Start()
    {
        lock (_starting)
        {
            if (_started)
            {
                throw new InvalidOperationException("The machine was started before; Resume lets a paused one go on.");
            }

            _started = true;
        }

        Resume();
    }

    /// <inheritdoc/>
    public void Pause() => Gate.Pause();

    /// <inheritdoc/>
    public void Resume()
    {
        lock (_starting)
        {
            if (!_started)
            {
                throw new InvalidOperationException("The machine has not been started.");
            }

            Gate.Resume();

            // After the vCPUs: they need the processor more.
            if (_awaitingFirst && _kicker is null)
            {
                _kicker = new Thread(KickUntilFirstInstruction) { IsBackground = true, Name = "first instruction" };
                _kicker.Start();
            }
        }
    }

    /// <inheritdoc/>
    public void Throttle(int percent)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(percent);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(percent, 99);
        Gate.Throttle(percent);
    }

    /// <inheritdoc/>
    public abstract IDirtyTracker TrackDirtyPages();

    /// <inheritdoc/>
    public byte[] SaveState()
    {
        byte[]? state = null;
        return Gate.TryWhilePaused(() => state = SavePaused()) ? state! : throw new InvalidOperationException("The state of a machine that runs can't be saved; pause it first.");
    }

    /// <inheritdoc/>
    public void LoadState(ReadOnlySpan<byte> state)
    {
        lock (_starting)
        {
            if (_started)
            {
                throw new InvalidOperationException("A state is loaded before the machine's start.");
            }

            MachineState.Vcpu[] saved = MachineState.Read(state, Host, VcpuCount, out _pagesWrong);
            for (int i = 0; i < saved.Length; i++)
            {
                LoadVcpu(i, saved[i].State);
                Volatile.Write(ref _vcpus[i].PassesLoaded, saved[i].Passes);
                _vcpus[i].Passes = saved[i].Passes;
                _vcpus[i].PagesChecked = saved[i].PagesChecked;
            }

            _awaitingFirst = true;
        }
    }

    /// <summary>Stops the vCPUs for good, then gives everything back, memory last.</summary>
    public void Dispose()
    {
        Gate.Stop();
        foreach (Thread? thread in _threads)
        {
            thread?.Join();
        }

        _kicker?.Join();
        Gate.JoinThrottler();
        DisposeVcpus();
        Engine?.Dispose();
        Memory.Dispose();
    }

    /// <summary>
    /// Makes the vCPU threads, and saves and loads a state once: its code is compiled now and not while a guest is stopped, and a host that
    /// can't load a state says so before a guest depends on it. The last step of making a machine.
    /// </summary>
    /// <exception cref="NotSupportedException">A vCPU can't be run or its state not be loaded.</exception>
    /// <exception cref="Linux.LinuxException">The kernel refused a part of the state.</exception>
    private protected void Prepare()
    {
        for (int i = 0; i < _threads.Length; i++)
        {
            int vcpu = i;
            _threads[i] = new Thread(() => RunVcpu(vcpu)) { IsBackground = true, Name = $"vCPU {vcpu}" };
            _threads[i].Start();
        }

        Gate.WaitUntilParked();
        if (_failure is not null)
        {
            throw new NotSupportedException($"The machine can't be made: {_failure}");
        }

        LoadState(SaveState());
        _awaitingFirst = false;
    }

    /// <summary>Another engine answers the guest's userfaults from now on, or none; no vCPU runs.</summary>
    private protected virtual void Attend(FaultEngine? engine)
    {
    }

    /// <summary>What a vCPU's thread does before all else.</summary>
    private protected abstract void Enter(int vcpu);

    /// <summary>Runs a vCPU, on its own thread, until it is to look whether it may go on.</summary>
    private protected abstract void Run(int vcpu);

    /// <summary>Makes a vCPU look whether it may go on.</summary>
    private protected abstract void Kick(int vcpu);

    private protected abstract byte[] SaveVcpu(int vcpu);

    private protected abstract void LoadVcpu(int vcpu, ReadOnlySpan<byte> state);

    private protected abstract void DisposeVcpus();

    /// <summary>The vCPU has completed a pass, or found wrong pages; <see cref="GuestPort.Report"/>.</summary>
    private protected void Report(int vcpu, uint report)
    {
        if ((report & GuestPort.ReportWrong) != 0)
        {
            _ = Interlocked.Add(ref _pagesWrong, report & ~GuestPort.ReportWrong);
            return;
        }

        Volatile.Write(ref _vcpus[vcpu].PagesChecked, _vcpus[vcpu].PagesChecked + report);
        Volatile.Write(ref _vcpus[vcpu].Passes, _vcpus[vcpu].Passes + 1);
    }

    /// <summary>The guest has ended: no vCPU runs any more.</summary>
    private protected void End(int vcpu, int code)
    {
        if (!Gate.TryEnd())
        {
            return;
        }

        EndLine(_vcpus[vcpu]);
        _ = _ended.TrySetResult(code);
    }

    /// <summary>The vCPU can't go on: the machine stands still and says why.</summary>
    private protected void Fail(int vcpu, string reason)
    {
        _failure ??= $"vCPU {vcpu} {reason}";
        End(vcpu, 1);
    }

    /// <summary>Bytes of the guest's console. Each vCPU has its own line.</summary>
    private protected void Print(int vcpu, ReadOnlySpan<byte> text)
    {
        VcpuRecord record = _vcpus[vcpu];
        foreach (byte character in text)
        {
            if (character == '\n' || record.LineLength == LongestLine)
            {
                EndLine(record);
            }

            if (character != '\n')
            {
                record.Line[record.LineLength++] = character;
            }
        }
    }

    /// <summary>The guest has executed an instruction since its state was loaded.</summary>
    private protected void SeeFirstInstruction()
    {
        if (_awaitingFirst)
        {
            lock (_starting)
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

    private byte[] SavePaused() => !Gate.IsOver
        ? MachineState.Write(Host, _pagesWrong, [.. _vcpus.Select((vcpu, i) => new MachineState.Vcpu(vcpu.Passes, vcpu.PagesChecked, SaveVcpu(i)))])
        : throw new InvalidOperationException($"The guest has ended: there is no state to go on from. {_failure}".TrimEnd());

    private void EndLine(VcpuRecord vcpu)
    {
        if (vcpu.LineLength > 0)
        {
            string line = Encoding.UTF8.GetString(vcpu.Line, 0, vcpu.LineLength);
            vcpu.LineLength = 0;
            lock (_console)
            {
                ConsoleLine?.Invoke(line);
            }
        }
    }

    private void RunVcpu(int vcpu)
    {
        try
        {
            Enter(vcpu);
            while (Gate.Park())
            {
                Run(vcpu);
            }
        }
        catch (Exception failure)
        {
            Fail(vcpu, $"failed: {failure.Message}");
        }

        Gate.Leave();
    }

    /// <summary>Kicks the vCPUs, so that each compares its registers with those loaded: often at first, then ever more rarely.</summary>
    private void KickUntilFirstInstruction()
    {
        TimeSpan pause = s_firstKick;
        for (int kicks = 0; _awaitingFirst && Gate.MayFinish; kicks++)
        {
            CurrentThread.Sleep(pause);
            if (!Gate.IsPausing)
            {
                Gate.KickAll();
            }

            if (kicks >= QuickKicks)
            {
                pause = pause * 2 < s_rarestKick ? pause * 2 : s_rarestKick;
            }
        }
    }

    private sealed class VcpuRecord
    {
        internal readonly byte[] Line = new byte[LongestLine];
        internal int LineLength;
        internal ulong Passes;
        internal ulong PassesLoaded;
        internal ulong PagesChecked;
    }
}
