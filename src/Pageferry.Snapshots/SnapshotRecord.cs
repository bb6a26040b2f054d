namespace Pageferry.Snapshots;

/// <summary>What a record has.</summary>
internal enum SnapshotRecord
{
    /// <summary>The machine state: the first record.</summary>
    State = 1,

    /// <summary>Neighbouring pages with their content.</summary>
    Pages = 2,

    /// <summary>A run of pages that are zero.</summary>
    Zeros = 3,

    /// <summary>How many pages there were: the last record.</summary>
    End = 4,
}
