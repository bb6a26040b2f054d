using System.Buffers.Binary;
using Google.Protobuf;

namespace Pageferry.Criu;

/// <summary>The bytes of an image: two magic numbers, then records, each a length and a protobuf message.</summary>
internal sealed class ImageFile
{
    /// <summary>The first number of most images, and of those that don't tell of processes.</summary>
    internal const uint IMG_COMMON_MAGIC = 0x54564319;
    internal const uint IMG_SERVICE_MAGIC = 0x55105940;

    internal const uint INVENTORY_MAGIC = 0x58313116;
    internal const uint PSTREE_MAGIC = 0x50273030;
    internal const uint PAGEMAP_MAGIC = 0x56084025;
    internal const uint MM_MAGIC = 0x57492820;

    /// <summary>More than the images of a million ranges take.</summary>
    private const long MostBytes = 256 << 20;

    private readonly byte[] _bytes;
    private int _at;

    internal ImageFile(string path, byte[] bytes, uint magic)
    {
        Path = path;
        _bytes = bytes;

        // An inventory, which is read before the version is known, has its type alone.
        if (TryReadNumber() is not { } first || (first is IMG_COMMON_MAGIC or IMG_SERVICE_MAGIC ? TryReadNumber() : first) != magic)
        {
            throw Failure($"is no such image: it does not begin with 0x{magic:x8}.");
        }
    }

    internal string Path { get; }

    /// <exception cref="ImageException">The file can't be read, or is another kind of image.</exception>
    internal static ImageFile Read(string path, uint magic)
    {
        try
        {
            long length = new FileInfo(path).Length;
            return length <= MostBytes
                ? new ImageFile(path, File.ReadAllBytes(path), magic)
                : throw new ImageException(path, $"has {length} bytes: more than {MostBytes} is not believed.");
        }
        catch (Exception failure) when (failure is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ImageException(path, "is not there. Give the directory of a dump's images (-D), with all that it wrote there.", failure);
        }
        catch (UnauthorizedAccessException failure)
        {
            throw new ImageException(path, $"can't be read: {failure.Message} Images are their dump's user's alone: run this as that user, root mostly.", failure);
        }
        catch (IOException failure) when (failure is not ImageException)
        {
            throw new ImageException(path, $"can't be read: {failure.Message}", failure);
        }
    }

    /// <summary>Moves to the next record.</summary>
    /// <returns>Its message; null at the end.</returns>
    /// <exception cref="ImageException">The file ends within a record.</exception>
    internal CodedInputStream? Next()
    {
        if (_at == _bytes.Length)
        {
            return null;
        }

        if (TryReadNumber() is not { } length || length > _bytes.Length - _at)
        {
            throw Failure("ends within a record.");
        }

        _at += (int)length;
        return new CodedInputStream(_bytes, _at - (int)length, (int)length);
    }

    /// <summary>Reads every field of a message.</summary>
    /// <param name="message">The message.</param>
    /// <param name="read">Reads the value of the field whose number it is given; returns false, having read nothing, for one that it does not know.</param>
    /// <exception cref="ImageException">The message makes no sense.</exception>
    internal void ReadFields(CodedInputStream message, Func<CodedInputStream, int, bool> read)
    {
        try
        {
            while (message.ReadTag() is var tag && tag != 0)
            {
                // What is unknown is another version's, and tells nothing that is needed here.
                if (!read(message, WireFormat.GetTagFieldNumber(tag)))
                {
                    message.SkipLastField();
                }
            }
        }
        catch (InvalidProtocolBufferException failure)
        {
            throw new ImageException(Path, $"holds a record that is no protobuf message: {failure.Message}", failure);
        }
    }

    internal ImageException Failure(string problem) => new(Path, problem);

    private uint? TryReadNumber()
    {
        if (_bytes.Length - _at < sizeof(uint))
        {
            return null;
        }

        _at += sizeof(uint);
        return BinaryPrimitives.ReadUInt32LittleEndian(_bytes.AsSpan(_at - sizeof(uint)));
    }
}
