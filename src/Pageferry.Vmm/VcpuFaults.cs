using System.Diagnostics.CodeAnalysis;
using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>
/// Gives an address to the userfaults of one vCPU that come as exits without one (<see cref="VcpuExitKind.Fault"/>): those pages are the fault that its next
/// step can touch and that are armed.
/// </summary>
/// <remarks>
/// Used by the vCPU's own thread. Allocates nothing after it was made. <see cref="VirtualMachine.TrySetEmulationExits"/> makes a fault of what would be an invalid
/// opcode in the guest; for a KVM that walks the guest's tables itself, <see cref="FaultEngine.RunStill"/> is set too.
/// </remarks>
public sealed class VcpuFaults
{
    /// <summary>So often in a row a step may fail with none of its pages armed. Twice is a race with who places pages; more is none.</summary>
    private const int MostFruitless = 4;

    /// <summary>KVM's <c>KVM_INTERNAL_ERROR_EMULATION</c>: where its emulator can't fetch an instruction, it gives up.</summary>
    private const ulong EmulationError = 1;

    private readonly FaultEngine[] _engines;
    private readonly GuestMemory[] _open;
    private readonly VirtualCpu _vcpu;
    private readonly FaultLocator _locator;
    private readonly FaultCandidate[] _candidates;
    private int _count;
    private int _next;
    private int _fruitless;
    private VcpuRegisters _fruitlessRegisters;
    private long _fruitlessArmings;

    /// <summary>Makes it, and has the kernel leave the vCPU's registers at hand at each exit where it can.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="engines">Answer the userfaults of the guest's memory, each of its own.</param>
    /// <param name="open">Memory of the guest that nobody arms, and that its page tables may be in.</param>
    public VcpuFaults(VirtualCpu vcpu, IReadOnlyList<FaultEngine> engines, IReadOnlyList<GuestMemory>? open = null)
        : this(vcpu, engines, open, FaultLocator.MostCandidates)
    {
    }

    internal VcpuFaults(VirtualCpu vcpu, IReadOnlyList<FaultEngine> engines, IReadOnlyList<GuestMemory>? open, int mostCandidates)
    {
        _candidates = new FaultCandidate[mostCandidates];
        _engines = [.. engines];
        _open = open is null ? [] : [.. open];
        _vcpu = vcpu;
        _locator = new FaultLocator(TryRead);
        _ = vcpu.TrySynchronizeContext();
    }

    /// <summary>Whether an exit can be a userfault without an address.</summary>
    /// <param name="exit">Why the vCPU stopped.</param>
    /// <returns>Whether to call <see cref="Locate"/>.</returns>
    public static bool MayBe(in VcpuExit exit) =>
        exit.Kind == VcpuExitKind.Fault || exit is { Kind: VcpuExitKind.InternalError, Value: EmulationError };

    /// <summary>Finds what the vCPU's next step can touch; <see cref="TryNext"/> goes through it.</summary>
    /// <exception cref="Linux.LinuxException">The registers can't be read.</exception>
    public void Locate()
    {
        _count = _locator.Locate(_vcpu, _candidates);
        _next = 0;
    }

    /// <summary>The next page of the step that is armed, as the exit that the kernel did not make.</summary>
    /// <param name="fault">A <see cref="VcpuExitKind.MemoryFault"/> with its GPA, size and <see cref="MemoryFaultFlags"/>.</param>
    /// <param name="engine">Resolves it.</param>
    /// <returns>False when no other page of the step is armed.</returns>
    public bool TryNext(out VcpuExit fault, [NotNullWhen(true)] out FaultEngine? engine)
    {
        while (_next < _count)
        {
            FaultCandidate candidate = _candidates[_next++];
            engine = EngineAt(candidate.Gpa);
            if (engine is not null && engine.IsArmed(candidate.Gpa))
            {
                _fruitless = 0;
                ulong size = engine.Memory.FaultSize;
                fault = new VcpuExit(
                    VcpuExitKind.MemoryFault, 0, candidate.Gpa & ~(size - 1), Value: (ulong)MemoryFaultFlags.Userfault | (ulong)candidate.Access, Length: size);
                return true;
            }
        }

        fault = default;
        engine = null;
        return false;
    }

    /// <summary>
    /// What is to be done when no page of the step is armed: its pages are shown again, for one may be accessible and just not mapped.
    /// </summary>
    /// <param name="mayWait">Whether the vCPU may go on waiting.</param>
    /// <returns>Whether to try again; false when that has not helped: the fault is on a page that the locator does not know of.</returns>
    public bool TryShowAgain(Func<bool> mayWait)
    {
        // A loop comes to the same instruction with other registers: that is progress. And what was hidden once more since may be just what was shown.
        VcpuRegisters registers = _vcpu.ReadContext().Registers;
        long armings = 0;
        foreach (FaultEngine engine in _engines)
        {
            armings += engine.Armings;
        }

        _fruitless = registers == _fruitlessRegisters && armings == _fruitlessArmings ? _fruitless + 1 : 1;
        (_fruitlessRegisters, _fruitlessArmings) = (registers, armings);
        for (int i = 0; i < _count; i++)
        {
            if (EngineAt(_candidates[i].Gpa) is { } engine && !engine.Resolve(_candidates[i].Gpa, mayWait))
            {
                return true;
            }
        }

        return _fruitless < MostFruitless;
    }

    /// <summary>The vCPU's next instruction, for a log.</summary>
    internal string Describe()
    {
        VcpuRegisters registers = _vcpu.ReadContext().Registers;
        return $"vCPU {_vcpu.Id} at RIP 0x{registers.Rip:x}: {_locator.Describe(_vcpu)}.";
    }

    private FaultEngine? EngineAt(ulong gpa)
    {
        foreach (FaultEngine engine in _engines)
        {
            if (engine.Memory.Contains(gpa))
            {
                return engine;
            }
        }

        return null;
    }

    private bool TryRead(ulong gpa, Span<byte> destination)
    {
        if (EngineAt(gpa) is { } engine)
        {
            return !engine.IsArmed(gpa) && engine.Memory.TryRead(gpa, destination);
        }

        foreach (GuestMemory memory in _open)
        {
            if (memory.Contains(gpa))
            {
                return memory.TryRead(gpa, destination);
            }
        }

        return false;
    }
}
