using System.Buffers.Binary;

namespace Pageferry.Linux;

/// <summary>One message of a userfaultfd (<c>struct uffd_msg</c>), read where it lies in its buffer.</summary>
public readonly ref struct UserfaultfdEvent
{
    /// <summary>The size of a message in bytes.</summary>
    internal const int Size = 32;

    private const ulong FlagWrite = 1;
    private const ulong FlagWriteProtect = 2;
    private const ulong FlagMinor = 4;

    private readonly ReadOnlySpan<byte> _message;

    internal UserfaultfdEvent(ReadOnlySpan<byte> message) => _message = message;

    /// <summary>Whether there is none: its place was emptied, and nothing read to it since.</summary>
    public bool IsEmpty => _message[0] == 0;

    /// <summary>What the message tells.</summary>
    public UserfaultfdEventKind Kind => (UserfaultfdEventKind)_message[0];

    /// <summary>PageFault: the address touched, rounded down to its page unless <see cref="UserfaultfdFeatures.ExactAddress"/> was asked for.</summary>
    public ulong Address => Word(2);

    /// <summary>PageFault: the access was a write (<c>UFFD_PAGEFAULT_FLAG_WRITE</c>).</summary>
    public bool IsWrite => (Word(1) & FlagWrite) != 0;

    /// <summary>PageFault: the page is there and write-protected (<c>UFFD_PAGEFAULT_FLAG_WP</c>).</summary>
    public bool IsWriteProtect => (Word(1) & FlagWriteProtect) != 0;

    /// <summary>PageFault: the content is in the page cache and isn't mapped (<c>UFFD_PAGEFAULT_FLAG_MINOR</c>).</summary>
    public bool IsMinor => (Word(1) & FlagMinor) != 0;

    /// <summary>PageFault: the thread, where <see cref="UserfaultfdFeatures.ThreadId"/> was asked for.</summary>
    public uint ThreadId => (uint)Word(3);

    /// <summary>Fork: the number of the new userfaultfd, which the reader owns.</summary>
    public int ForkDescriptor => (int)(uint)Word(1);

    /// <summary>Remap: the old address.</summary>
    public ulong RemapFrom => Word(1);

    /// <summary>Remap: the new address.</summary>
    public ulong RemapTo => Word(2);

    /// <summary>Remap: bytes.</summary>
    public ulong RemapLength => Word(3);

    /// <summary>Remove and Unmap: the first address.</summary>
    public ulong Start => Word(1);

    /// <summary>Remove and Unmap: the first address after the range.</summary>
    public ulong End => Word(2);

    private ulong Word(int index) => BinaryPrimitives.ReadUInt64LittleEndian(_message[(index * sizeof(ulong))..]);
}
