namespace Pageferry.Cli;

/// <summary>How a run ended.</summary>
internal enum TortureOutcome
{
    /// <summary>The guest moved before anything was done to it.</summary>
    Undisturbed,

    /// <summary>The guest moved in spite of what was done.</summary>
    Recovered,

    /// <summary>The source's process was gone: the guest's memory was served on by command.</summary>
    RecoveredByCommand,

    /// <summary>The migration failed, the guest went on at the source, and was moved by the next one.</summary>
    FailedBefore,

    /// <summary>The destination was gone: the guest went back to the switchover by command, and was moved by the next migration.</summary>
    RolledBack,

    /// <summary>The guest runs nowhere, or lacks pages, or can't be moved any more.</summary>
    Lost,

    /// <summary>The guest read what nobody wrote.</summary>
    WrongBytes,

    /// <summary>The guest ran on both sides.</summary>
    BothRunning,
}
