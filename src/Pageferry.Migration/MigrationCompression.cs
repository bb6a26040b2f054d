namespace Pageferry.Migration;

/// <summary>How the content of background pages is compressed. Pages that the guest waits for never are.</summary>
public enum MigrationCompression
{
    /// <summary>Not at all.</summary>
    None,

    /// <summary>LZ4, where a batch becomes smaller by it.</summary>
    Lz4,

    /// <summary>zstd at its fastest usual level, where a batch becomes smaller by it.</summary>
    Zstd,

    /// <summary>Whatever is measured to move pages fastest: on a fast link nothing, on a slow one LZ4 or zstd.</summary>
    Auto,
}
