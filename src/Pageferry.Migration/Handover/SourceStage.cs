namespace Pageferry.Migration;

/// <summary>Whose the guest is, as far as the source knows.</summary>
internal enum SourceStage
{
    /// <summary>The source's: it runs there.</summary>
    Owned,

    /// <summary>The source's, where it stands still: the destination is being told its state.</summary>
    Offered,

    /// <summary>The destination's, which may run it from now on. The source does not, unless the destination is known to have lost it.</summary>
    LetGo,

    /// <summary>The destination's, which has every page.</summary>
    Forgotten,

    /// <summary>Nobody's: the destination's half was taken out as a file. This side's memory is kept, to be made one guest of with it.</summary>
    Exported,
}
