namespace Pageferry.Migration;

/// <summary>Whose the guest is, as far as the destination knows.</summary>
internal enum DestinationStage
{
    /// <summary>The source's: there is at most some of its memory here.</summary>
    Empty,

    /// <summary>Not known: the guest could run here, and waits for the source's word.</summary>
    Loaded,

    /// <summary>The destination's: it runs here, and pages may be missing.</summary>
    Started,

    /// <summary>The destination's, with every page; the source may not know yet.</summary>
    Whole,

    /// <summary>The destination's alone: the source has forgotten it.</summary>
    Released,

    /// <summary>Nobody's: the guest was stopped and taken out of this process as a file, and never runs here again.</summary>
    Exported,

    /// <summary>The source's again: it went back to the switchover, and the guest was dropped here before that.</summary>
    Fenced,
}
