using Microsoft.Win32.SafeHandles;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>Bytes that are too many for a packet, as a file in memory that goes along with one.</summary>
internal static class BytesFile
{
    /// <summary>Makes a file of bytes.</summary>
    /// <param name="name">Its name, for <c>/proc</c>.</param>
    /// <param name="bytes">Its content.</param>
    /// <returns>The file, which the caller disposes.</returns>
    internal static MemoryFile Write(string name, ReadOnlySpan<byte> bytes)
    {
        var file = MemoryFile.Create(name, (ulong)bytes.Length);
        using var handle = new SafeFileHandle(file.Descriptor.Number, ownsHandle: false);
        RandomAccess.Write(handle, bytes, fileOffset: 0);
        return file;
    }

    /// <summary>Reads such a file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="length">How many bytes it is said to have.</param>
    /// <param name="most">The most that are taken.</param>
    /// <param name="what">What they are, for a reader.</param>
    /// <exception cref="InvalidDataException">It has fewer, or more than are taken are said to be there.</exception>
    internal static byte[] Read(FileDescriptor file, ulong length, ulong most, string what)
    {
        if (length > most)
        {
            throw new InvalidDataException($"{what} has {length} bytes, of {most} that it has at most.");
        }

        var bytes = new byte[length];
        using var handle = new SafeFileHandle(file.Number, ownsHandle: false);
        for (int read = 0; read < bytes.Length;)
        {
            int more = RandomAccess.Read(handle, bytes.AsSpan(read), read);
            read += more > 0 ? more : throw new InvalidDataException($"{what} has {read} of {length} bytes.");
        }

        return bytes;
    }
}
