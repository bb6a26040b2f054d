using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>The pages found so far, each once, in the order in which the processor comes to them. What does not fit is left out.</summary>
internal ref struct FaultCandidates(Span<FaultCandidate> room)
{
    private readonly Span<FaultCandidate> _room = room;

    /// <summary>How many there are.</summary>
    internal int Count { get; private set; }

    /// <summary>Adds a page, or what is done with it.</summary>
    /// <param name="gpa">An address in it.</param>
    /// <param name="access">What is done with it.</param>
    internal void Add(ulong gpa, FaultAccess access)
    {
        ulong page = gpa & ~(ulong)(Page.Size - 1);
        for (int i = 0; i < Count; i++)
        {
            if (_room[i].Gpa == page)
            {
                _room[i] = new FaultCandidate(page, _room[i].Access | access);
                return;
            }
        }

        if (Count < _room.Length)
        {
            _room[Count++] = new FaultCandidate(page, access);
        }
    }
}
