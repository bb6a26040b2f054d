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

    /// <summary>Its size in bytes.</summary>
    public int Length { get; }

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
