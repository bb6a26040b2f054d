namespace Pageferry.Migration;

/// <summary>What comes after a round of pre-copy.</summary>
internal enum DecisionKind
{
    /// <summary>Another round.</summary>
    NextRound,

    /// <summary>The guest stops, and what is left goes while it stands still.</summary>
    StopAndCopy,

    /// <summary>The guest stops, and what is left goes after it.</summary>
    PostCopy,

    /// <summary>The migration ends.</summary>
    Cancel,
}
