using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>A guest with its memory and vCPUs, whatever runs it.</summary>
public interface IMachine : IDisposable
{
    /// <summary>What runs the guest. A state fits only the same.</summary>
    MachineHost Host { get; }

    /// <summary>What tells which pages the guest writes, besides this process's own writes.</summary>
    DirtyTracking DirtyTracking { get; }

    /// <summary>The guest's memory.</summary>
    GuestMemory Memory { get; }

    /// <summary>
    /// Answers the guest's userfaults, if there are any; set while no vCPU runs and before it is started. Where they are delivered as exits, the vCPUs' own threads resolve them with it.
    /// It is disposed with the machine.
    /// </summary>
    FaultEngine? Engine { get; set; }

    /// <summary>How many vCPUs it has.</summary>
    int VcpuCount { get; }

    /// <summary>How far the guest is, asked from any thread.</summary>
    MachineProgress Progress { get; }

    /// <summary>Completes with the guest's code when it ended, or with 1 when it failed.</summary>
    Task<int> Ended { get; }

    /// <summary>
    /// After the start of a loaded state: the guest is known to have executed an instruction. An upper bound: it is told by the
    /// guest's first exit, or by a change of registers seen when the vCPU was kicked, which happens every 250 µs at first.
    /// </summary>
    event Action? FirstInstruction;

    /// <summary>A line that the guest wrote to its console, without its end.</summary>
    event Action<string>? ConsoleLine;

    /// <summary>Lets the vCPUs run for the first time.</summary>
    void Start();

    /// <summary>Stops the vCPUs. Returns when none runs any more.</summary>
    void Pause();

    /// <summary>Lets paused vCPUs go on.</summary>
    void Resume();

    /// <summary>Slows the guest down: its vCPUs run for 10 ms, then stand still for as long as makes the share (QEMU: cpu-throttle).</summary>
    /// <param name="percent">The share of time that they stand still: 0, the default, to 99.</param>
    /// <exception cref="ArgumentOutOfRangeException">Another share.</exception>
    void Throttle(int percent);

    /// <summary>Begins to track which pages of memory are written, by the guest or by this process; once at a time, and while memory is not registered for userfaults.</summary>
    /// <returns>What tells it; disposed before the machine, it ends the tracking.</returns>
    /// <exception cref="Linux.LinuxException">The kernel can't: userfaultfd's WP_ASYNC needs Linux 6.7.</exception>
    IDirtyTracker TrackDirtyPages();

    /// <summary>Saves all that the machine is beside memory; while it is paused.</summary>
    /// <returns>Bytes for <see cref="LoadState"/> of a machine of the same host and vCPU count.</returns>
    byte[] SaveState();

    /// <summary>Loads a saved state; before the first start.</summary>
    /// <param name="state">What <see cref="SaveState"/> made, or anything else.</param>
    /// <exception cref="InvalidDataException">It is not a state of such a machine.</exception>
    /// <exception cref="Linux.LinuxException">The kernel refused a part of it.</exception>
    void LoadState(ReadOnlySpan<byte> state);
}
