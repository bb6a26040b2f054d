namespace Pageferry.Linux;

/// <summary>Native memory that messages of a userfaultfd are read into, many at once. Owned by who reads.</summary>
public sealed class UserfaultfdEventBuffer : IDisposable
{
    private readonly MappedRegion _memory;
    private readonly ulong _offset;
    private readonly bool _isOwned = true;

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

    /// <summary>
    /// Makes a buffer of memory that is somebody's, and may outlive this process: the kernel writes a message there before the read that takes it returns, also in a process that
    /// is being killed.
    /// </summary>
    /// <param name="memory">The memory, which outlives the buffer.</param>
    /// <param name="offset">Where the messages begin in it, in bytes.</param>
    /// <param name="capacity">How many messages it holds; at least 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">The capacity is below 1, or they are not within the memory.</exception>
    public UserfaultfdEventBuffer(MappedRegion memory, ulong offset, int capacity)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, memory.Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(BytesFor(capacity), memory.Length - offset, nameof(capacity));
        Capacity = capacity;
        _memory = memory;
        _offset = offset;
        _isOwned = false;
    }

    /// <summary>How many bytes messages take.</summary>
    /// <param name="capacity">How many messages.</param>
    /// <returns>Their bytes.</returns>
    public static ulong BytesFor(int capacity) => (ulong)capacity * UserfaultfdEvent.Size;

    /// <summary>How many messages it holds.</summary>
    public int Capacity { get; }

    /// <summary>The message at a position below the count that the last read returned.</summary>
    /// <param name="index">0 to <see cref="Capacity"/> - 1.</param>
    /// <returns>The message, valid until the next read.</returns>
    public UserfaultfdEvent this[int index] => new(Message(index));

    internal ulong Address => _memory.Address + _offset;

    internal int Bytes => Capacity * UserfaultfdEvent.Size;

    /// <summary>Empties the buffer: a message that is none has the kind 0.</summary>
    /// <param name="count">How many messages to forget, from the first on.</param>
    public void Clear(int count)
    {
        for (int i = 0; i < count; i++)
        {
            Message(i).Clear();
        }
    }

    /// <summary>Gives the memory back, unless it is somebody's.</summary>
    public void Dispose()
    {
        if (_isOwned)
        {
            _memory.Dispose();
        }
    }

    private Span<byte> Message(int index)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)Capacity, nameof(index));
        return _memory.Span(_offset + ((ulong)index * UserfaultfdEvent.Size), UserfaultfdEvent.Size);
    }
}
