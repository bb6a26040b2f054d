using System.Buffers.Binary;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>
/// All that a holder knows of a record beside its descriptors, in a memory file of fixed length: it outlives the holder where a service manager keeps it. How far the record has
/// been let go of is two bytes that are only ever set, so that of the holder and who has the record none can undo what the other has said. Who has the record has an opening of
/// the file that is locked, and the kernel ends that with the process: as long as there is one, no holder gives the record to another.
/// </summary>
internal sealed class HeldFile : IDisposable
{
    private const int VersionAt = 8;
    private const int NameLengthAt = 9;
    private const int DescriptorsAt = 10;
    private const int BlobLengthAt = 12;
    private const int LetGoAt = 16;
    private const int BurntAt = 17;
    private const int SecretAt = 32;
    private const int NameAt = 64;
    private const int BlobAt = NameAt + HoldPacket.MostName;

    /// <summary>The form that this build writes and reads.</summary>
    private const byte Version = 1;

    private readonly MemoryFile _file;
    private readonly int _blobLength;

    private HeldFile(MemoryFile file, string name, byte[] secret, int descriptors, int blobLength)
    {
        _file = file;
        Name = name;
        Secret = secret;
        Descriptors = descriptors;
        _blobLength = blobLength;
    }

    /// <summary>What the record is kept as.</summary>
    internal string Name { get; }

    /// <summary>What proves that a client may have it.</summary>
    internal byte[] Secret { get; }

    /// <summary>How many descriptors belong to it.</summary>
    internal int Descriptors { get; }

    /// <summary>The file itself.</summary>
    internal FileDescriptor Descriptor => _file.Descriptor;

    /// <summary>How far the record has been let go of.</summary>
    internal HoldStage Stage
    {
        get
        {
            Span<byte> flags = stackalloc byte[BurntAt - LetGoAt + 1];
            Read(_file.Descriptor, flags, LetGoAt);
            return flags[BurntAt - LetGoAt] != 0 ? HoldStage.Burnt : flags[0] != 0 ? HoldStage.LetGo : HoldStage.Offered;
        }
    }

    private static ReadOnlySpan<byte> Magic => "PFHELD\r\n"u8;

    /// <summary>Makes the file of a record.</summary>
    /// <param name="name">What it is kept as.</param>
    /// <param name="secret">What proves that a client may have it.</param>
    /// <param name="blob">What is kept beside the descriptors.</param>
    /// <param name="descriptors">How many descriptors belong to it.</param>
    /// <returns>The file, offered, which the caller disposes.</returns>
    /// <exception cref="LinuxException">No memory, or too many open files.</exception>
    internal static HeldFile Create(string name, ReadOnlySpan<byte> secret, ReadOnlySpan<byte> blob, int descriptors)
    {
        var content = new byte[BlobAt + blob.Length];
        Magic.CopyTo(content);
        content[VersionAt] = Version;
        content[NameLengthAt] = (byte)name.Length;
        content[DescriptorsAt] = (byte)descriptors;
        BinaryPrimitives.WriteInt32LittleEndian(content.AsSpan(BlobLengthAt), blob.Length);
        secret.CopyTo(content.AsSpan(SecretAt));
        _ = Encoding.ASCII.GetBytes(name, content.AsSpan(NameAt));
        blob.CopyTo(content.AsSpan(BlobAt));
        var file = MemoryFile.CreateFixed("held", (ulong)content.Length);
        Write(file.Descriptor, content, 0);
        return new HeldFile(file, name, secret.ToArray(), descriptors, blob.Length);
    }

    /// <summary>Reads the file of a record that another holder made.</summary>
    /// <param name="descriptor">The file; owned by the result.</param>
    /// <returns>The file, which the caller disposes.</returns>
    /// <exception cref="InvalidDataException">It is none, or this build does not know its form.</exception>
    internal static HeldFile Open(FileDescriptor descriptor)
    {
        MemoryFile file;
        var header = new byte[BlobAt];
        try
        {
            file = MemoryFile.FromDescriptor(descriptor, "held");
            if (!file.IsFixed || file.Length is < BlobAt or > BlobAt + HoldPacket.MostBlob)
            {
                throw new InvalidDataException("it is no file of a record.");
            }

            Read(descriptor, header, 0);
        }
        catch (IOException e)
        {
            throw new InvalidDataException($"it is no file of a record: {e.Message}", e);
        }

        if (!header.AsSpan(0, Magic.Length).SequenceEqual(Magic))
        {
            throw new InvalidDataException("it is no file of a record.");
        }

        if (header[VersionAt] != Version)
        {
            throw new InvalidDataException($"it is of version {header[VersionAt]}; this build knows version {Version}. Start the build that wrote it.");
        }

        int blobLength = BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(BlobLengthAt));
        string name = header[NameLengthAt] <= HoldPacket.MostName ? Encoding.ASCII.GetString(header, NameAt, header[NameLengthAt]) : string.Empty;
        return HoldPacket.IsName(name) && header[DescriptorsAt] <= HoldPacket.MostDescriptors && blobLength == (long)file.Length - BlobAt
            ? new HeldFile(file, name, header[SecretAt..NameAt], header[DescriptorsAt], blobLength)
            : throw new InvalidDataException("its lengths don't fit it.");
    }

    /// <summary>Says, to whoever has the file, that nobody gets the record any more.</summary>
    /// <param name="file">The file, or the opening of who has the record.</param>
    /// <exception cref="IOException">It can't be written.</exception>
    internal static void Burn(FileDescriptor file) => Write(file, [1], BurntAt);

    /// <summary>Moves the record to a later stage.</summary>
    internal void Advance(HoldStage stage)
    {
        if (stage != HoldStage.Offered)
        {
            Write(Descriptor, [1], stage == HoldStage.LetGo ? LetGoAt : BurntAt);
        }
    }

    /// <summary>Reads what is kept beside the descriptors.</summary>
    internal byte[] ReadBlob()
    {
        var blob = new byte[_blobLength];
        Read(Descriptor, blob, BlobAt);
        return blob;
    }

    /// <summary>Makes the record be one process's: that which the result is sent to.</summary>
    /// <returns>The locked opening of the file, which the caller disposes; null if a process that lives has one.</returns>
    /// <exception cref="LinuxException">Too many open files.</exception>
    internal FileDescriptor? TryClaim() => _file.TryOpenLocked();

    /// <summary>Closes the file.</summary>
    public void Dispose() => _file.Dispose();

    private static void Read(FileDescriptor file, Span<byte> to, long at)
    {
        using var handle = new SafeFileHandle(file.Number, ownsHandle: false);
        while (!to.IsEmpty)
        {
            int bytes = RandomAccess.Read(handle, to, at);
            at += bytes > 0 ? bytes : throw new IOException("The file of a record ends too early.");
            to = to[bytes..];
        }
    }

    private static void Write(FileDescriptor file, ReadOnlySpan<byte> bytes, long at)
    {
        using var handle = new SafeFileHandle(file.Number, ownsHandle: false);
        RandomAccess.Write(handle, bytes, at);
    }
}
