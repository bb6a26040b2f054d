namespace Pageferry.Cli;

/// <summary>What is done to a migration. Their words, which <see cref="ScenarioWord"/> knows, are what users write.</summary>
internal enum TortureScenario
{
    /// <summary>All connections are cut.</summary>
    Cut,

    /// <summary>One connection is cut.</summary>
    CutOne,

    /// <summary>Bytes are held back, one way or both, and the connections look alive.</summary>
    HalfOpen,

    /// <summary>Bytes take longer.</summary>
    Delay,

    /// <summary>A byte arrives as another.</summary>
    Corrupt,

    /// <summary>The source's process is stopped for a while.</summary>
    StopSource,

    /// <summary>The destination's process is stopped for a while.</summary>
    StopDestination,

    /// <summary>The destination's process is killed before the guest could run there.</summary>
    KillDestination,

    /// <summary>The process of the destination's engine is killed, before or after the switchover.</summary>
    KillEngine,

    /// <summary>The destination's process is killed when the guest runs there and pages are missing; a person has the guest go back to the switchover.</summary>
    KillArrived,

    /// <summary>The source's process is killed when the guest runs at the destination and pages are missing; another process serves on what a holder kept.</summary>
    KillSource,

    /// <summary>All connections are cut, and for a while nobody gets through.</summary>
    Refuse,

    /// <summary>Several of the others in one migration.</summary>
    Mixed,
}
