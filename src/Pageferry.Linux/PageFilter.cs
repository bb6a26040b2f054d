namespace Pageferry.Linux;

/// <summary>Which pages <see cref="PageMap.Scan"/> looks for. The default finds every page.</summary>
public readonly record struct PageFilter
{
    /// <summary>A page has each of these.</summary>
    public PageCategories All { get; init; }

    /// <summary>A page has at least one of these, unless none is given.</summary>
    public PageCategories Any { get; init; }

    /// <summary>A page has none of these; for other categories than <see cref="All"/> and <see cref="Any"/>.</summary>
    public PageCategories None { get; init; }
}
