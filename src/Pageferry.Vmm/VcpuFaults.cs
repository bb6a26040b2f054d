using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>
/// Gives an address to the userfaults of one vCPU that come as exits without one (<see cref="VcpuExitKind.Fault"/>): those pages are the fault that its next
/// step can touch and that are armed.
/// </summary>
/// <remarks>Used by the vCPU's own thread. Allocates nothing after it was made.</remarks>
internal sealed class VcpuFaults
{
    /// <summary>So often in a row a step may fail with none of its pages armed. Twice is a race with who places pages; more is none.</summary>
    private const int MostFruitless = 4;

    /// <summary>KVM's <c>KVM_INTERNAL_ERROR_EMULATION</c>: where its emulator can't fetch an instruction, it gives up.</summary>
    private const ulong EmulationError = 1;

    private readonly FaultEngine _engine;
    private readonly VirtualCpu _vcpu;
    private readonly FaultLocator _locator;
    private readonly FaultCandidate[] _candidates = new FaultCandidate[FaultLocator.MostCandidates];
    private int _count;
    private int _next;
    private int _fruitless;
    private ulong _fruitlessRip;

    internal VcpuFaults(FaultEngine engine, VirtualCpu vcpu)
    {
        _engine = engine;
        _vcpu = vcpu;
        _locator = new FaultLocator(TryRead);
        _ = vcpu.TrySynchronizeContext();
    }

    /// <summary>Whether an exit can be a userfault without an address.</summary>
    internal static bool MayBe(in VcpuExit exit) =>
        exit.Kind == VcpuExitKind.Fault || exit is { Kind: VcpuExitKind.InternalError, Value: EmulationError };

    /// <summary>Finds what the vCPU's next step can touch; <see cref="TryNext"/> goes through it.</summary>
    internal void Locate()
    {
        _count = _locator.Locate(_vcpu, _candidates);
        _next = 0;
    }

    /// <summary>The next page of the step that is armed, as the exit that the kernel did not make.</summary>
    /// <param name="fault">A <see cref="VcpuExitKind.MemoryFault"/> with its GPA, size and <see cref="MemoryFaultFlags"/>.</param>
    /// <returns>False when no other page of the step is armed.</returns>
    internal bool TryNext(out VcpuExit fault)
    {
        while (_next < _count)
        {
            FaultCandidate candidate = _candidates[_next++];
            if (_engine.Memory.Contains(candidate.Gpa) && _engine.IsArmed(candidate.Gpa))
            {
                _fruitless = 0;
                ulong size = _engine.Memory.FaultSize;
                fault = new VcpuExit(
                    VcpuExitKind.MemoryFault, 0, candidate.Gpa & ~(size - 1), Value: (ulong)MemoryFaultFlags.Userfault | (ulong)candidate.Access, Length: size);
                return true;
            }
        }

        fault = default;
        return false;
    }

    /// <summary>
    /// What is to be done when no page of the step is armed: its pages are shown again, for one may be accessible and just not mapped.
    /// </summary>
    /// <param name="mayWait">Whether the vCPU may go on waiting.</param>
    /// <returns>Whether to try again; false when that has not helped: the fault is on a page that the locator does not know of.</returns>
    internal bool TryShowAgain(Func<bool> mayWait)
    {
        ulong rip = _vcpu.ReadContext().Registers.Rip;
        _fruitless = rip == _fruitlessRip ? _fruitless + 1 : 1;
        _fruitlessRip = rip;
        for (int i = 0; i < _count; i++)
        {
            if (_engine.Memory.Contains(_candidates[i].Gpa) && !_engine.Resolve(_candidates[i].Gpa, mayWait))
            {
                return true;
            }
        }

        return _fruitless < MostFruitless;
    }

    private bool TryRead(ulong gpa, Span<byte> destination) =>
        _engine.Memory.Contains(gpa) && !_engine.IsArmed(gpa) && _engine.Memory.TryRead(gpa, destination);
}
