namespace Pageferry.Cli;

/// <summary>What a holder answers.</summary>
internal enum HoldAnswer : byte
{
    /// <summary>It was done.</summary>
    Done,

    /// <summary>Nothing is kept under that name with that secret.</summary>
    Unknown,

    /// <summary>Another connection has it, and lives.</summary>
    Taken,

    /// <summary>There is no room: too many entries or descriptors.</summary>
    Full,

    /// <summary>This connection does not have it: it has to be taken first.</summary>
    NotTaken,

    /// <summary>It is at a later stage already.</summary>
    Backwards,

    /// <summary>The packet is none that a holder knows.</summary>
    Malformed,

    /// <summary>The service manager does not store it: it would be lost with the holder's process.</summary>
    NotStored,

    /// <summary>The service manager stores what is there, which can't be replaced in one step.</summary>
    NotReplaced,
}
