namespace Pageferry.Migration;

/// <summary>How the payload of a batch of pages is compressed. The numbers stand in the protocol.</summary>
internal enum PageEncoding : byte
{
    /// <summary>Not at all.</summary>
    None = 0,

    /// <summary>One LZ4 block.</summary>
    Lz4 = 1,

    /// <summary>One zstd frame.</summary>
    Zstd = 2,
}
