using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>Memory that is registered with a userfaultfd, and a second view of it where it has one.</summary>
internal sealed class Armed : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly Arena _arena;
    private readonly MemoryFile? _file;
    private readonly Messages _messages;
    private readonly List<Thread> _users = [];
    private readonly List<Child> _children = [];
    private Exception? _failure;

    internal Armed(Arena arena, ulong pages, UserfaultfdModes modes, UserfaultfdFeatures features)
    {
        _arena = arena;
        Userfaultfd = arena.Open(features);
        try
        {
            (Region, _file) = arena.Map(pages);
            Host = arena.IsShared ? MappedRegion.MapShared(_file!.Descriptor, 0, Region.Length) : null;
            Ioctls = Userfaultfd.Register(Region.Address, Region.Length, modes);
            _messages = new Messages(arena, Userfaultfd);
        }
        catch
        {
            Userfaultfd.Dispose();
            Region?.Dispose();
            Host?.Dispose();
            _file?.Dispose();
            throw;
        }
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

    /// <inheritdoc cref="Messages.IsQuiet"/>
    internal bool IsQuiet => _messages.IsQuiet;

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

    /// <summary>Whether the kernel can read a page: it copies it to another memory.</summary>
    internal bool CanKernelRead(ulong page)
    {
        using var small = new Arena(MemoryKind.Anonymous);
        using Armed other = small.ArmMissing(1);
        UserfaultfdResult result = other.Userfaultfd.Copy(other.At(0), At(page), other.PageBytes, UserfaultfdCopyFlags.None, out _);
        _arena.Expect(result is UserfaultfdResult.Done or UserfaultfdResult.BadSource, true, $"the kernel's read ends with success or EFAULT, not with {result}");
        return result == UserfaultfdResult.Done;
    }

    /// <summary>Whether the kernel can write the first byte of a page.</summary>
    internal bool CanKernelWrite(ulong page, byte value) => Region.TryCopyIn(page * PageBytes, [value]) == 1;

    /// <summary>Starts a thread that does something with the memory: the mapping outlives it.</summary>
    internal Thread StartUser(ThreadStart use)
    {
        var user = new Thread(() =>
        {
            try
            {
                use();
            }
            catch (Exception failure) when (failure is LinuxException or CaseFailedException)
            {
                _failure = failure;
            }
        })
        { IsBackground = true };
        _users.Add(user);
        user.Start();
        return user;
    }

    /// <summary>Waits until a thread of <see cref="StartUser"/> is through.</summary>
    /// <param name="user">The thread.</param>
    /// <param name="rule">What is expected, for the failure.</param>
    internal void Finish(Thread user, string rule)
    {
        _arena.Expect(user.Join(s_patience), true, rule);
        if (_failure is { } failure)
        {
            throw new CaseFailedException(failure.Message);
        }
    }

    /// <summary>Forks a child that reads the number that a page has as text, 42 if <see cref="PlaceNumber"/> put it there, and 0 where there is none.</summary>
    internal Child ForkReader(ulong page) => Fork("atoi", At(page));

    /// <summary>Forks a child that writes to a page: the time.</summary>
    internal Child ForkWriter(ulong page) => Fork("time", At(page));

    /// <summary>Forks a child that touches nothing and stays until it is ended.</summary>
    internal Child ForkIdler() => Fork("pause", 0);

    /// <summary>Copies pages in, each byte of which is 42.</summary>
    internal UserfaultfdResult Copy(ulong page, ulong count, out long done, UserfaultfdCopyFlags flags = UserfaultfdCopyFlags.None) =>
        Userfaultfd.Copy(At(page), _arena.Content, count * PageBytes, flags, out done);

    /// <summary>Copies one page in and wakes who waits.</summary>
    internal void Place(ulong page) => _arena.Expect(Copy(page, 1, out _), UserfaultfdResult.Done);

    /// <summary>Copies a page in that has the number 42 as text, and wakes who waits.</summary>
    internal void PlaceNumber(ulong page) =>
        _arena.Expect(Userfaultfd.Copy(At(page), _arena.NumberContent, PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);

    /// <summary>Has writes to a page fault.</summary>
    internal void Protect(ulong page) => _arena.Expect(Userfaultfd.WriteProtect(At(page), PageBytes, UserfaultfdWriteProtectFlags.Protect), UserfaultfdResult.Done);

    /// <summary>Lets writes to a page pass, and wakes who waits.</summary>
    internal void Unprotect(ulong page) => _arena.Expect(Userfaultfd.WriteProtect(At(page), PageBytes, UserfaultfdWriteProtectFlags.None), UserfaultfdResult.Done);

    /// <inheritdoc cref="Messages.Next"/>
    internal UserfaultfdEvent Next() => _messages.Next();

    /// <summary>Waits for the fault of a page.</summary>
    internal UserfaultfdEvent NextFault(ulong page) => _messages.NextFault(At(page));

    public void Dispose()
    {
        // Where a case has failed a thread may still wait. Closing releases it; unmapping under it would be its SIGSEGV.
        Userfaultfd.Dispose();
        _children.ForEach(child => child.Dispose());
        _users.ForEach(user => user.Join());
        Region.Dispose();
        Host?.Dispose();
        _file?.Dispose();
        _messages.Dispose();
    }

    private Child Fork(string function, ulong argument)
    {
        var child = new Child(StartUser, function, argument);
        _children.Add(child);
        return child;
    }
}
