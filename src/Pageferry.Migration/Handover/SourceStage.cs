namespace Pageferry.Migration;

/// <summary>Whose the guest is, as far as the source knows.</summary>
internal enum SourceStage
{
    /// <summary>The source's: it runs there.</summary>
    Owned,

    /// <summary>The source's, where it stands still: the destination is being told its state.</summary>
    Offered,

    /// <summary>The destination's, which may run it from now on. The source never does again.</summary>
    LetGo,

    /// <summary>The destination's, which has every page.</summary>
    Forgotten,
}
