namespace Pageferry.Criu;

/// <summary>Where the content of pages is.</summary>
[Flags]
public enum PagemapFlags
{
    /// <summary>Nowhere: the pages are holes.</summary>
    None = 0,

    /// <summary>In the images that these were taken on top of (<c>PE_PARENT</c>).</summary>
    Parent = 1,

    /// <summary>The process may run before the pages are there (<c>PE_LAZY</c>).</summary>
    Lazy = 2,

    /// <summary>In the pages image (<c>PE_PRESENT</c>).</summary>
    Present = 4,
}
