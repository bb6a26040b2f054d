using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>The messages of a userfaultfd, one after the other.</summary>
internal sealed class Messages : IDisposable
{
    private const int PatienceMilliseconds = 10_000;
    private const int GlanceMilliseconds = 30;

    private readonly Arena _arena;
    private readonly Userfaultfd _userfaultfd;
    private readonly UserfaultfdEventBuffer _events = new(16);
    private readonly Poll _poll;
    private int _read;
    private int _taken;

    internal Messages(Arena arena, Userfaultfd userfaultfd)
    {
        _arena = arena;
        _userfaultfd = userfaultfd;
        _poll = new Poll(userfaultfd.Descriptor);
    }

    /// <summary>Whether no message comes within a glance of 30 ms.</summary>
    internal bool IsQuiet => _taken == _read && _poll.Wait(GlanceMilliseconds) == 0;

    /// <summary>Waits for one message.</summary>
    internal UserfaultfdEvent Next()
    {
        if (_taken == _read)
        {
            _taken = 0;
            _read = _poll.Wait(PatienceMilliseconds) == 0 ? 0 : _userfaultfd.Read(_events);
            if (_read == 0)
            {
                throw new CaseFailedException($"expected a message, found none within {PatienceMilliseconds / 1000} s");
            }
        }

        return _events[_taken++];
    }

    /// <summary>Waits for the fault of the page at an address.</summary>
    internal UserfaultfdEvent NextFault(ulong page)
    {
        UserfaultfdEvent fault = Next();
        _arena.Expect(fault.Kind, UserfaultfdEventKind.PageFault);
        _arena.Expect(fault.Address & ~(_arena.PageBytes - 1), page);
        return fault;
    }

    public void Dispose() => _events.Dispose();
}
