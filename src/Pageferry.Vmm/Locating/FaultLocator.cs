using Iced.Intel;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>
/// Finds what a vCPU's next step can touch, after <c>KVM_RUN</c> failed with EFAULT and no address: the pages of its instruction, of every operand, of the
/// page tables on the way to them, and of the delivery of events. The armed or missing pages among them are the fault.
/// </summary>
/// <remarks>
/// <para>
/// What lies behind a page that can't be read is not known: the list ends there with that page, and grows once it is placed. A repeated string instruction is
/// listed by its next element, a gather by the elements that are left: the others follow when it is tried again. What an instruction touches under other
/// conditions only (masked lanes, components of an XSAVE area that are in their first state) is listed too, so that a list may hold pages that are not touched,
/// but lacks none that is.
/// </para>
/// <para>
/// Not listed: shadow stacks, system management mode, what a task switch loads after the new TSS, and the structures of nested virtualization.
/// </para>
/// Every call is answered from the same buffers: one locator serves one thread, and allocates nothing.
/// </remarks>
internal sealed class FaultLocator
{
    /// <summary>Room for so many candidates is enough for every instruction.</summary>
    internal const int MostCandidates = MostWalks * PageWalker.MostPages;

    /// <summary>A gather of 16 elements across pages, its code, and the delivery of three events at once.</summary>
    private const int MostWalks = 32 + 2 + (3 * 14);

    private readonly InstructionFetch _fetch = new();
    private readonly ExtendedState _state = new();
    private readonly InstructionAccesses _accesses;
    private readonly GuestReader _read;

    /// <summary>Makes a locator.</summary>
    /// <param name="read">Reads the guest's memory, its page tables above all, without waiting for a page.</param>
    internal FaultLocator(GuestReader read)
    {
        _read = read;
        _accesses = new InstructionAccesses(_state);
    }

    /// <summary>Lists the pages that a vCPU's next step can touch. Only the vCPU's own thread calls this, between two runs.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="candidates">
    /// Where to; <see cref="MostCandidates"/> are always enough. In a shorter one those that the processor comes to first are kept.
    /// </param>
    /// <returns>How many there are; each page once.</returns>
    /// <exception cref="Linux.LinuxException">The registers can't be read.</exception>
    internal int Locate(VirtualCpu vcpu, Span<FaultCandidate> candidates)
    {
        _state.Of(vcpu);
        return Locate(in vcpu.ReadContext(), candidates);
    }

    /// <summary>The same for registers that are given.</summary>
    /// <param name="context">The registers.</param>
    /// <param name="xcr0">What vector state the guest may use.</param>
    /// <param name="xsave">An XSAVE area of the standard format.</param>
    /// <param name="candidates">Where to.</param>
    /// <returns>How many there are.</returns>
    internal int Locate(in VcpuContext context, ulong xcr0, byte[] xsave, Span<FaultCandidate> candidates)
    {
        _state.Of(xcr0, xsave);
        return Locate(in context, candidates);
    }

    /// <summary>The vCPU's next instruction for a reader.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <returns>Its mnemonic and operands, or that it can't be read.</returns>
    internal string Describe(VirtualCpu vcpu)
    {
        VcpuContext context = vcpu.ReadContext();
        var memory = new LinearMemory(_read, in context, new FaultCandidate[MostCandidates]);
        return _fetch.TryFetch(ref memory, out Instruction instruction) ? instruction.ToString() : "an instruction that can't be read";
    }

    private int Locate(in VcpuContext context, Span<FaultCandidate> candidates)
    {
        var memory = new LinearMemory(_read, in context, candidates);
        EventDelivery.TouchPending(ref memory);
        if (_fetch.TryFetch(ref memory, out Instruction instruction))
        {
            _accesses.Touch(ref memory, instruction);
        }

        return memory.Count;
    }
}
