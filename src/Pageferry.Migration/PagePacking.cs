using K4os.Compression.LZ4;
using ZstdSharp;

namespace Pageferry.Migration;

/// <summary>Compresses and decompresses payloads, between buffers of its caller. One thread's.</summary>
internal sealed class PagePacking : IDisposable
{
    private const int ZstdLevel = 1;

    private Compressor? _compressor;
    private Decompressor? _decompressor;

    /// <summary>Compresses.</summary>
    /// <param name="encoding">How.</param>
    /// <param name="content">What.</param>
    /// <param name="packed">Where to: what doesn't fit isn't worth it.</param>
    /// <returns>How many bytes were written; 0 if they are more than fit.</returns>
    internal int Pack(PageEncoding encoding, ReadOnlySpan<byte> content, Span<byte> packed)
    {
        if (encoding == PageEncoding.Lz4)
        {
            return Math.Max(0, LZ4Codec.Encode(content, packed));
        }

        _compressor ??= new Compressor(ZstdLevel);
        return _compressor.TryWrap(content, packed, out int written) ? written : 0;
    }

    /// <summary>Decompresses what a peer sent.</summary>
    /// <param name="encoding">How it was compressed.</param>
    /// <param name="packed">What came.</param>
    /// <param name="content">Where to: as large as the content has to be.</param>
    /// <returns>Whether it was that, and of that size; if not, anything may have been written.</returns>
    internal bool TryUnpack(PageEncoding encoding, ReadOnlySpan<byte> packed, Span<byte> content)
    {
        if (encoding == PageEncoding.Lz4)
        {
            return LZ4Codec.Decode(packed, content) == content.Length;
        }

        _decompressor ??= new Decompressor();
        try
        {
            return _decompressor.TryUnwrap(packed, content, out int written) && written == content.Length;
        }
        catch (ZstdException)
        {
            return false;
        }
    }

    public void Dispose()
    {
        _compressor?.Dispose();
        _decompressor?.Dispose();
    }
}
