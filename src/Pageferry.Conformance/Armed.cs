using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>Memory that is registered with a userfaultfd, and a second view of it where it has one.</summary>
internal sealed class Armed : IDisposable
{
    private const int PatienceMilliseconds = 10_000;
    private const int GlanceMilliseconds = 30;

    private readonly Arena _arena;
    private readonly MemoryFile? _file;
    private readonly UserfaultfdEventBuffer _events = new(16);
    private readonly Poll _poll;
    private readonly List<Thread> _users = [];
    private int _read;
    private int _taken;

    internal Armed(Arena arena, ulong pages, UserfaultfdModes modes, UserfaultfdFeatures features)
    {
        _arena = arena;
        (Region, _file) = arena.Map(pages);
        Host = _file is null ? null : MappedRegion.MapShared(_file.Descriptor, 0, Region.Length);
        Userfaultfd = arena.Open(features);
        Ioctls = Userfaultfd.Register(Region.Address, Region.Length, modes);
        _poll = new Poll(Userfaultfd.Descriptor);
    }

    /// <summary>The view that faults.</summary>
    internal MappedRegion Region { get; }

    /// <summary>The view that doesn't; null for private memory.</summary>
    internal MappedRegion? Host { get; }

    internal MemoryFile? MemoryFile => _file;

    internal Userfaultfd Userfaultfd { get; }

    /// <summary>What <c>UFFDIO_REGISTER</c> returned: bit n for request n.</summary>
    internal ulong Ioctls { get; }

    internal ulong PageBytes => _arena.PageBytes;

    internal ulong At(ulong page) => Region.Address + (page * PageBytes);

    /// <summary>Touches the first byte of a page.</summary>
    internal Touch Read(ulong page) => new(StartUser, () =>
    {
        Span<byte> one = stackalloc byte[1];
        Region.CopyOut(page * PageBytes, one);
        return one[0];
    });

    /// <summary>Writes the first byte of a page.</summary>
    internal Touch Write(ulong page, byte value) => new(StartUser, () =>
    {
        Region.CopyIn(page * PageBytes, [value]);
        return value;
    });

    /// <summary>Starts a thread that touches the memory: the mapping outlives it.</summary>
    internal Thread StartUser(ThreadStart touch)
    {
        var user = new Thread(touch) { IsBackground = true };
        _users.Add(user);
        user.Start();
        return user;
    }

    /// <summary>Copies pages in, each byte of which is 42.</summary>
    internal UserfaultfdResult Copy(ulong page, ulong count, out long done, UserfaultfdCopyFlags flags = UserfaultfdCopyFlags.None) =>
        Userfaultfd.Copy(At(page), _arena.Content, count * PageBytes, flags, out done);

    /// <summary>Copies one page in and wakes who waits.</summary>
    internal void Place(ulong page) => _arena.Expect(Copy(page, 1, out _), UserfaultfdResult.Done);

    /// <summary>Waits for one message.</summary>
    internal UserfaultfdEvent Next()
    {
        if (_taken == _read)
        {
            _taken = 0;
            _read = _poll.Wait(PatienceMilliseconds) == 0 ? 0 : Userfaultfd.Read(_events);
            if (_read == 0)
            {
                throw new CaseFailedException($"expected a message, found none within {PatienceMilliseconds / 1000} s");
            }
        }

        return _events[_taken++];
    }

    /// <summary>Waits for the fault of a page.</summary>
    internal UserfaultfdEvent NextFault(ulong page)
    {
        UserfaultfdEvent fault = Next();
        _arena.Expect(fault.Kind, UserfaultfdEventKind.PageFault);
        _arena.Expect(fault.Address & ~(PageBytes - 1), At(page));
        return fault;
    }

    /// <summary>Whether no message comes within a glance of 30 ms.</summary>
    internal bool IsQuiet => _taken == _read && _poll.Wait(GlanceMilliseconds) == 0;

    public void Dispose()
    {
        // Where a case has failed a thread may still wait. Closing releases it; unmapping under it would be its SIGSEGV.
        Userfaultfd.Dispose();
        _users.ForEach(user => user.Join());
        Region.Dispose();
        Host?.Dispose();
        _file?.Dispose();
        _events.Dispose();
    }
}
