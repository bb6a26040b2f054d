namespace Pageferry.Snapshots;

/// <summary>How much of a guest a file has.</summary>
public enum SnapshotPart
{
    /// <summary>All of it: it can be run.</summary>
    Whole = 1,

    /// <summary>What the source of a migration has: all memory, as it was at the switchover.</summary>
    SourceHalf = 2,

    /// <summary>What the destination has: the guest as it is now, without the pages that had not arrived.</summary>
    DestinationHalf = 3,
}
