namespace Pageferry.Migration;

/// <summary>What the source has to do then.</summary>
internal enum SourceAction
{
    /// <summary>Nothing about the guest: the migration goes on or ends as it is.</summary>
    None,

    /// <summary>Let the guest go on here.</summary>
    Resume,

    /// <summary>Tell the destination to let the guest run (<see cref="MessageType.Start"/>).</summary>
    SendStart,

    /// <summary>Send the destination the pages that it lacks.</summary>
    Serve,

    /// <summary>
    /// Find the destination again: the guest is its. Not a word is said on the link that failed: Start may not have been sent on it, and a destination that hears that its
    /// source parts, and heard no Start, drops the guest.
    /// </summary>
    Reconnect,

    /// <summary>Tell the destination that the guest is forgotten here (<see cref="MessageType.Released"/>).</summary>
    Release,
}
