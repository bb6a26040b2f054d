namespace Pageferry.Migration;

/// <summary>How far a migration is.</summary>
public enum MigrationPhase
{
    /// <summary>Nothing has begun; a destination listens.</summary>
    Waiting,

    /// <summary>Connections are made, memory is mapped and armed at the destination. The guest runs at the source.</summary>
    Preparing,

    /// <summary>Memory goes while the guest runs at the source, in rounds.</summary>
    PreCopy,

    /// <summary>The guest stands still: its machine state is on the way.</summary>
    SwitchingOver,

    /// <summary>The guest runs at the destination, its pages follow.</summary>
    PostCopy,

    /// <summary>The link was lost after switchover: both sides look for each other, the guest runs on the pages it has (QEMU: postcopy-paused).</summary>
    Paused,

    /// <summary>Every page is at the destination.</summary>
    Completed,

    /// <summary>It failed before switchover: the guest is the source's.</summary>
    Failed,

    /// <summary>It was cancelled before switchover: the guest is the source's.</summary>
    Cancelled,

    /// <summary>The link was lost after switchover, and is not looked for any more: the guest stalls on what is missing.</summary>
    Stalled,

    /// <summary>The guest was stopped at the destination and taken out as a file: it is nobody's, and both sides keep what they have.</summary>
    Exported,

    /// <summary>The guest went back to the switchover, and is the source's again.</summary>
    RolledBack,

    /// <summary>Every page is at the destination, where the guest runs; validation found some that are not as they are at the source, which keeps its memory.</summary>
    Mismatched,
}
