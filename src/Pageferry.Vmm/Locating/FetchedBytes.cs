using Iced.Intel;

namespace Pageferry.Vmm;

/// <summary>The bytes that an instruction is decoded from, in a buffer that is used again.</summary>
internal sealed class FetchedBytes : CodeReader
{
    /// <summary>The longest instruction.</summary>
    internal const int Most = 15;

    private readonly byte[] _bytes = new byte[Most];
    private int _length;
    private int _next;

    /// <inheritdoc/>
    public override int ReadByte() => _next < _length ? _bytes[_next++] : -1;

    /// <summary>Makes room for so many bytes, of which the first may be there already.</summary>
    internal Span<byte> Take(int length)
    {
        _length = length;
        return _bytes.AsSpan(0, length);
    }

    /// <summary>Reads from the first byte again.</summary>
    internal void Rewind() => _next = 0;
}
