using System.Diagnostics;
using Pageferry.Kvm;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>One measurement: every vCPU touches its pages once, all at the same time.</summary>
/// <param name="options">What is measured.</param>
internal sealed class PagingRun(PagingOptions options)
{
    /// <summary>How long a vCPU that was kicked may take to end.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    private readonly long[] _beganAt = new long[options.Vcpus];
    private readonly long[] _endedAt = new long[options.Vcpus];
    private readonly TaskCompletionSource<Exception> _failed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _running = options.Vcpus;
    private volatile bool _isStopping;

    /// <summary>Measures.</summary>
    /// <returns>What was found.</returns>
    /// <exception cref="CommandException">It could not be carried out, or a page was wrong.</exception>
    /// <exception cref="LinuxException">KVM, userfaultfd or the memory is refused.</exception>
    internal PagingResult Run()
    {
        using var machine = new PagingMachine(options);
        using var start = new Barrier(options.Vcpus);
        Thread[] threads = [.. machine.Vcpus.Select(vcpu => new Thread(() => RunVcpu(machine, vcpu, start)) { IsBackground = true, Name = $"vcpu {vcpu.Id}" })];
        Array.ForEach(threads, thread => thread.Start());
        Task<Exception>[] failures = [_failed.Task, .. machine.Slices.Select(slice => slice.Failed).OfType<Task<Exception>>()];
        _ = Task.WaitAny([_ended.Task, .. failures]);
        if (failures.FirstOrDefault(failure => failure.IsCompleted) is { } failed)
        {
            Stop(machine, threads);
            throw new CommandException($"The measurement could not go on: {failed.Result.Message}");
        }

        Array.ForEach(threads, thread => thread.Join());
        foreach (PagingSlice slice in machine.Slices)
        {
            slice.Stop();
        }

        if (Enumerable.Range(0, options.Vcpus).FirstOrDefault(vcpu => !machine.HasReadAll(vcpu), -1) is var wrong and >= 0)
        {
            throw new CommandException($"vCPU {wrong} did not read what its pages were to hold: a page was missing, stale or another one.");
        }

        return new PagingResult(
            Stopwatch.GetElapsedTime(_beganAt.Min(), _endedAt.Max()),
            [.. _beganAt.Zip(_endedAt, Stopwatch.GetElapsedTime)],
            new LatencyHistogram(machine.ReadCounters(), machine.Vcpus[0].GetTscFrequency()),
            [.. machine.Slices.Select(slice => slice.Statistics).OfType<Pageferry.Memory.FaultStatistics>()]);
    }

    /// <summary>Ends the vCPUs. One that waits for a page is interrupted or, on kernels that can't, goes on when its memory is gone.</summary>
    private void Stop(PagingMachine machine, Thread[] threads)
    {
        _isStopping = true;
        foreach (VirtualCpu vcpu in machine.Vcpus)
        {
            vcpu.Kick();
        }

        Array.ForEach(threads, thread => thread.Join(s_patience));
        machine.DisposeSlices();
        Array.ForEach(threads, thread => thread.Join());
    }

    private void RunVcpu(PagingMachine machine, VirtualCpu vcpu, Barrier start)
    {
        bool isAtStart = false;
        try
        {
            if (options.CpuOf(vcpu.Id) is { } cpu)
            {
                CurrentThread.RunOn(cpu);
            }

            vcpu.BindToCurrentThread();
            VcpuFaults? faults = options.Delivery == PagingDelivery.Exit ? machine.FaultsOf(vcpu) : null;

            // What the guest needs besides its slice is mapped now.
            RunUntil(vcpu, faults, GuestPort.Report);
            isAtStart = true;
            start.SignalAndWait();
            _beganAt[vcpu.Id] = Stopwatch.GetTimestamp();
            RunUntil(vcpu, faults, GuestPort.Exit);
            _endedAt[vcpu.Id] = Stopwatch.GetTimestamp();
        }
        catch (Exception failure)
        {
            _ = _failed.TrySetResult(failure);
            if (!isAtStart)
            {
                start.RemoveParticipant();
            }
        }

        if (Interlocked.Decrement(ref _running) == 0)
        {
            _ = _ended.TrySetResult();
        }
    }

    private bool MayWait() => !_isStopping;

    /// <summary>Resolves a fault that came as an exit, on the vCPU's own thread.</summary>
    private void Resolve(VirtualCpu vcpu, VcpuFaults faults)
    {
        faults.Locate();
        bool isLocated = false;
        while (faults.TryNext(out VcpuExit fault, out FaultEngine? engine))
        {
            isLocated = true;
            _ = engine.Resolve(fault.Address, MayWait);
        }

        if (!isLocated && !faults.TryShowAgain(MayWait))
        {
            throw new CommandException($"vCPU {vcpu.Id} stopped at RIP 0x{vcpu.Registers.Rip:x} on a fault that could not be located.");
        }
    }

    /// <summary>Runs a vCPU until it writes to a port: the one place where its exits are handled.</summary>
    private void RunUntil(VirtualCpu vcpu, VcpuFaults? faults, ushort port)
    {
        while (true)
        {
            VcpuExit exit = vcpu.Run();
            switch (exit.Kind)
            {
                case VcpuExitKind.PortWrite when exit.Address == port:
                    return;

                case VcpuExitKind.Interrupted when !_isStopping:
                    break;

                case VcpuExitKind.Fault when faults is not null && !_isStopping:
                    Resolve(vcpu, faults);
                    break;

                default:
                    throw new CommandException($"vCPU {vcpu.Id} stopped at RIP 0x{vcpu.Registers.Rip:x}: {exit.Kind} (exit reason {exit.Reason}, address 0x{exit.Address:x}).");
            }
        }
    }
}
