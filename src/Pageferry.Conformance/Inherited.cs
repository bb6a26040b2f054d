using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>What a child has of memory that it was forked with: the userfaultfd that the message of the fork brings.</summary>
internal sealed class Inherited : IDisposable
{
    private readonly Messages _messages;

    /// <summary>Reads the message of a fork.</summary>
    internal Inherited(Arena arena, Armed parent)
    {
        UserfaultfdEvent fork = parent.Next();
        arena.Expect(fork.Kind, UserfaultfdEventKind.Fork);
        Userfaultfd = Userfaultfd.FromDescriptor(new FileDescriptor(fork.ForkDescriptor));
        _messages = new Messages(arena, Userfaultfd);
    }

    /// <summary>The child's userfaultfd.</summary>
    internal Userfaultfd Userfaultfd { get; }

    /// <inheritdoc cref="Messages.NextFault"/>
    internal UserfaultfdEvent NextFault(ulong page) => _messages.NextFault(page);

    public void Dispose()
    {
        Userfaultfd.Dispose();
        _messages.Dispose();
    }
}
