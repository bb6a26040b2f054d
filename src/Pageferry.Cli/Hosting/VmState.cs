namespace Pageferry.Cli;

/// <summary>The states of a guest's process, as its status names them.</summary>
internal static class VmState
{
    /// <summary>Waits for a guest to arrive.</summary>
    internal const string Waiting = "waiting";

    /// <summary>The guest runs and all its memory is here.</summary>
    internal const string Running = "running";

    /// <summary>The guest stands still until it is resumed, and all its memory is here.</summary>
    internal const string Paused = "paused";

    /// <summary>The guest is being moved away: it still is here, or its memory is still served from here.</summary>
    internal const string Leaving = "leaving";

    /// <summary>The guest is here and its memory is still arriving.</summary>
    internal const string Arriving = "arriving";

    /// <summary>The guest is elsewhere and has all its memory.</summary>
    internal const string Moved = "moved";

    /// <summary>The link was lost after switchover: the guest waits for pages that can't come.</summary>
    internal const string Stalled = "stalled";

    /// <summary>The guest was stopped and taken out as a file: it never goes on here.</summary>
    internal const string Exported = "exported";

    /// <summary>The source went back to the switchover, and the guest was dropped here.</summary>
    internal const string Fenced = "fenced";

    /// <summary>The guest ended, or was stopped.</summary>
    internal const string Ended = "ended";

    /// <summary>The guest can't go on.</summary>
    internal const string Failed = "failed";
}
