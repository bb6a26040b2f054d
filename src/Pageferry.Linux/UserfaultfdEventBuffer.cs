namespace Pageferry.Linux;

/// <summary>Native memory that messages of a userfaultfd are read into, many at once. Owned by who reads.</summary>
public sealed class UserfaultfdEventBuffer : IDisposable
{
    private readonly MappedRegion _memory;

    /// <summary>Makes a buffer.</summary>
    /// <param name="capacity">How many messages it holds; at least 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">The capacity is below 1.</exception>
    /// <exception cref="LinuxException">No memory.</exception>
    public UserfaultfdEventBuffer(int capacity)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        Capacity = capacity;
        _memory = MappedRegion.MapAnonymous((ulong)capacity * UserfaultfdEvent.Size);
    }

    /// <summary>How many messages it holds.</summary>
    public int Capacity { get; }

    /// <summary>The message at a position below the count that the last read returned.</summary>
    /// <param name="index">0 to <see cref="Capacity"/> - 1.</param>
    /// <returns>The message, valid until the next read.</returns>
    public UserfaultfdEvent this[int index] =>
        new(_memory.Span(checked((ulong)index * UserfaultfdEvent.Size), UserfaultfdEvent.Size));

    internal ulong Address => _memory.Address;

    internal int Bytes => Capacity * UserfaultfdEvent.Size;

    /// <summary>Gives the memory back.</summary>
    public void Dispose() => _memory.Dispose();
}
