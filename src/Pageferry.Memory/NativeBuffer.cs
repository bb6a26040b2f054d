using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Native memory for content on its way: made once, of a fixed size, outside of the garbage collector's heap. Takes memory as far as it is written.</summary>
public sealed class NativeBuffer : IDisposable
{
    private readonly MappedRegion _region;

    /// <summary>Makes a buffer; every byte is 0.</summary>
    /// <param name="bytes">Its size; more than 0.</param>
    /// <exception cref="LinuxException">ENOMEM: there is no address space left.</exception>
    public NativeBuffer(int bytes)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bytes, 1);
        Length = bytes;
        _region = MappedRegion.MapAnonymous(((ulong)bytes + Page.Size - 1) / Page.Size * Page.Size);
    }

    /// <summary>Maps a file of memory: what is in the buffer outlives this process as long as somebody has the file.</summary>
    /// <param name="file">The file; a page multiple long. Not needed any more when this returns.</param>
    /// <exception cref="ArgumentException">The file is empty, no page multiple, or longer than 2 GiB.</exception>
    /// <exception cref="LinuxException">The file can't be mapped.</exception>
    public NativeBuffer(MemoryFile file)
    {
        if (file.Length is 0 or > int.MaxValue || file.Length % Page.Size != 0)
        {
            throw new ArgumentException($"A buffer is a page multiple of up to 2 GiB; {file.Name} has {file.Length} bytes.", nameof(file));
        }

        Length = (int)file.Length;
        _region = file.Map(file.Length);
    }

    /// <summary>Its size in bytes.</summary>
    public int Length { get; }

    internal MappedRegion Region => _region;

    /// <summary>A part of it.</summary>
    /// <param name="offset">Where the part begins.</param>
    /// <param name="length">Its size.</param>
    /// <returns>The part; not valid after the disposal.</returns>
    /// <exception cref="ArgumentOutOfRangeException">It is not within the buffer.</exception>
    public Span<byte> Span(int offset, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length - offset);
        return _region.Span((ulong)offset, length);
    }

    /// <summary>Gives the memory back.</summary>
    public void Dispose() => _region.Dispose();
}
